"""One thread per process, set before torch is imported: two on a busy machine are many times slower."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest
from hypothesis import settings

settings.register_profile("mimetic", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("mimetic")

# A shell starts what runs in the background deaf to Ctrl-C, and what tests start and interrupt would be, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying why."""
    if not os.environ.get("MIMETIC_DATA"):
        for item in items:
            if item.get_closest_marker("data") is not None:
                item.add_marker(pytest.mark.skip(reason="needs real data: set MIMETIC_DATA to its folder"))


class InThisProcess:
    """An executor without workers, which cost seconds to start."""

    def run(self, waves: Sequence[Sequence[Any]], tick: Callable[[], None]) -> None:
        """Train one trial after another; `tick` is called before each step."""
        from mimetic.study.trials.shelf import TrialCache
        from mimetic.study.trials.trial import run_trial

        shelf = TrialCache()
        for trial in chain.from_iterable(waves):
            run_trial(trial, shelf, tick)
        tick()


@pytest.fixture(scope="session")
def in_this_process() -> Callable[[], AbstractContextManager[None]]:
    """Return what makes studies train in this process for a while, whatever executor they ask for."""

    @contextmanager
    def executing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mimetic.study.study.pick_executor", lambda *_, **__: InThisProcess())
            yield

    return executing
