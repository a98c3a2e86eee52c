"""One training job: what is trained, what may stop it, and how it ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from mimetic.config.registry import Component
from mimetic.data.dataset import Dataset
from mimetic.journal import Journal
from mimetic.train.config import Train

PROGRESS_SECONDS = 1.0
"""Shortest time between two progress events of a journal."""

MetricsHook = Callable[[nn.Module, int], Mapping[str, float]]
"""`hook(model, epoch)` returns further metrics. It may change the model's mode, but not its values."""

Stop = Callable[[], str | None]
"""Returns the reason to stop now, or None. Called before each step: it must be cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Everything one training needs.

    Attributes:
        model: The model with its initial values, trained in place. Frozen parameters require no gradient.
        dataset: The splits, with the statistics that normalize them.
        spec: The training section of the recipe.
        seed: Seed of order, augmentation, mixing and dropout.
        journal: The trial's journal.
        folder: The trial's folder, for checkpoint, weights and profile; a checkpoint there is continued from.
        plan_hash: Hash of the plan; a checkpoint of another plan is refused.
        augment: Augmentations of training images, in order.
        frozen: Canonical name → `freeze.digest` of the tensors that must not change.
        frozen_norm_layers: Canonical names of the norm layers whose running statistics stay fixed.
        metadata: Further fields of the journal's start event.
        metrics_hook: Called before training and after each epoch; excluded from the epoch's time.
        profile: Whether to record where the time of a few steps goes.
    """

    model: nn.Module
    dataset: Dataset
    spec: Train
    seed: int
    journal: Journal
    folder: Path
    plan_hash: str
    augment: Sequence[Component] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    frozen_norm_layers: Sequence[str] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    metrics_hook: MetricsHook | None = None
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended.

    Attributes:
        status: FINISHED, FAILED, or KILLED when `stop` returned a reason.
        reason: Why it did not finish.
    """

    status: Literal["FINISHED", "FAILED", "KILLED"]
    reason: str | None = None


class Stopped(Exception):  # noqa: N818 (a request, not an error)
    """`stop` returned a reason to end the trial."""


def never() -> None:
    """Never stop."""


def stop_if(reason: str | None) -> None:
    """Leave the loop if there is a reason to stop.

    Raises:
        Stopped: With the reason.
    """
    if reason is not None:
        raise Stopped(reason)
