"""The results of trials, as their journals hold them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mimetic.files import check_contained
from mimetic.journal import Event, Status, history, status
from mimetic.metrics import Metric
from mimetic.printable import pluralize
from mimetic.study.layout import Trial, trial_events, trials_of
from mimetic.study.record import StudyRecord

Curve = Mapping[int, float]
"""Epoch → value."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial, as its journal holds it.

    Curves are metric → epoch → logged value; `steps` is epoch → optimizer steps so far; `seconds` is the wall
    time of training, None if unknown; `origin` is the trial of which this is a copy, if it is one.
    """

    arm: str
    seed: int
    status: Status
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seconds: float | None = None
    steps: Curve = field(default_factory=dict)
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """After how many seeds successive halving stopped an arm, and its mean over them on validation data."""

    seeds: int
    metric: str
    mean: float

    @property
    def text(self) -> str:
        """Return it in words, e.g. `stopped after 1 seed`."""
        return f"stopped after {pluralize(self.seeds, 'seed')}"


def stopped_arms(record: StudyRecord) -> dict[str, Stopped]:
    """Return the arms of a study that successive halving stopped, from its record."""
    return {
        arm: Stopped(len(rung.seeds), rung.metric, rung.means[arm])
        for rung in record.halving
        for arm in rung.stopped
    }


def read_results(folder: Path) -> list[TrialResult]:
    """Read the results of a study's trials, in the order of its arms.

    Raises:
        UserError: If the folder is no study.
    """
    trials = trials_of(folder)
    check_contained(folder)
    return [read_result(trial) for trial in trials]


def read_result(trial: Trial) -> TrialResult:
    """Read the result of a trial from its journal."""
    return trial_result(trial.arm, trial.seed, trial_events(trial))


def trial_result(arm: str, seed: int, events: Sequence[Event]) -> TrialResult:
    """Return the result that a journal's events amount to."""
    curves = history(events)
    if "epoch_seconds" in curves:  # an epoch counts once, however often the trial was resumed
        seconds: float | None = sum(curves["epoch_seconds"].values())
    else:
        ends = [event.get("seconds") for event in events if event["event"] == "end"]
        seconds = ends[-1] if ends else None
    steps = {e["epoch"]: e["step"] for e in events if e["event"] == "epoch" and e.get("step") is not None}
    origin = next((f"{e['study']}/{e['trial']}" for e in events if e["event"] == "reused"), None)
    return TrialResult(arm, seed, status(events), curves, seconds, steps, origin)


def finished_curves(results: Iterable[TrialResult], *, arm: str, metric: Metric) -> dict[int, Curve]:
    """Return seed → epoch → displayed value of a metric, of an arm's finished trials that have it."""
    return {
        result.seed: {e: metric.factor * value for e, value in result.curves[metric.name].items()}
        for result in results
        if result.arm == arm and result.status == "FINISHED" and result.curves.get(metric.name)
    }
