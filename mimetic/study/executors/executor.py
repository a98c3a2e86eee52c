"""The interface between a study and what trains its trials."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from mimetic.study.config import Executor
from mimetic.study.layout import Trial

Tick = Callable[[], None]
"""Updates the display and the tracker; called a few times a second."""

Spec_contra = TypeVar("Spec_contra", bound=Executor, contravariant=True)


class TrialExecutor(Protocol):
    """Trains trials until all have ended or it is stopped."""

    def run(self, waves: Iterable[Sequence[Trial]], tick: Tick) -> None:
        """Train every trial of a wave, then those of the next, which harvest from earlier ones.

        What the next wave has may depend on results of those before, so it is requested when they have ended.
        An exception raised by `tick`, KeyboardInterrupt among them, stops all trials within a step.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorRequest:
    """What an executor needs to know of a study.

    Attributes:
        devices: Devices of its trials, `auto` or names of torch.
        workers: Worker processes, if the user or the recipe gives their number.
        slots: Trials that share a GPU.
        logs: Folder for the output of workers.
        address: Address of the cluster, if the user gives one.
    """

    devices: frozenset[str]
    workers: int | None
    slots: int
    logs: Path
    address: str | None


class ExecutorFunction(Protocol[Spec_contra]):
    """The implementation of an executor of the recipe, `impl=` of its section."""

    def __call__(self, spec: Spec_contra, request: ExecutorRequest) -> TrialExecutor:
        """Return the executor; it starts nothing before `run`."""
