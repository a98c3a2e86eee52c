"""An executor without worker processes: for debugging, and for trials of a few seconds."""

from collections.abc import Iterable, Sequence
from itertools import chain

from mimetic.study.executors.executor import ExecutorRequest, Tick
from mimetic.study.layout import Trial
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.trial import run_trial
from mimetic_example.config import Inline


def inline(_spec: Inline, _request: ExecutorRequest) -> "InlineExecutor":
    """Return the executor."""
    return InlineExecutor()


class InlineExecutor:
    """Trains one trial after another in the coordinator's process."""

    def run(self, waves: Iterable[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial of a wave, then those of the next; `tick` is called before each trial."""
        cache = TrialCache()
        for trial in chain.from_iterable(waves):
            tick()
            run_trial(trial, cache, lambda: None)
        tick()
