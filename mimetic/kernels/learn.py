"""Run a learner, plan what it will do, and turn what it learned into covariances.

A learner is one section in `mimetic.kernels.config` and two functions: `impl` learns (protocol `RunLearner`),
`plan_impl` describes beforehand what it will do and which layers it will give covariances for (protocol
`PlanLearner`).

Shapes: D patch coordinates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from mimetic.config.registry import implementation
from mimetic.covariance.covariance import Covariance, PatchGeometry, measured
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.linalg import symmetric_root
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.kernels.config import Iterated, Learner
from mimetic.kernels.problem import Problem

STATISTIC = "learned"
"""Statistic of the harvests that come from learners."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Result of one round.

    Attributes:
        number: Counts from 0, the kernel before features are learned.
        metrics: Loss and accuracy of every split, and the selected ridge.
        covariances: What was learned before the round, one matrix M (D, D) per layer; None is the identity.
    """

    number: int
    metrics: Mapping[str, float]
    covariances: tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class LearnerPlan:
    """What a learner will do.

    Attributes:
        description: Lines for people.
        layers: Layers it will give covariances for, still without values; empty if it learns no features.
    """

    description: tuple[str, ...]
    layers: tuple[Harvested, ...] = ()


class RunLearner(Protocol):
    """Function that learns: `def rfm(spec: Rfm, problem: Problem) -> Iterator[Round]`.

    It calls `problem.progress` during a round, which may raise to stop it. Raises UserError if the images do
    not fit the learner.
    """

    def __call__(self, spec: Learner, problem: Problem, /) -> Iterator[Round]:
        """Yield the rounds."""
        ...


class PlanLearner(Protocol):
    """Function that plans: `def plan_rfm(spec: Rfm, shape: ImageShape) -> LearnerPlan`.

    Raises UserError if images of that shape are too small.
    """

    def __call__(self, spec: Learner, shape: ImageShape, /) -> LearnerPlan:
        """Return the plan."""
        ...


def run_learner(spec: Learner, problem: Problem) -> Iterator[Round]:
    """Yield the result of each round of a learner.

    Raises:
        UserError: If the images do not fit the learner.
    """
    run: RunLearner = implementation(spec)
    yield from run(spec, problem)


def plan_learner(spec: Learner, shape: ImageShape) -> LearnerPlan:
    """Return what a learner will do with images of a shape, before anything is loaded.

    Raises:
        UserError: If the images are too small for it.
    """
    plan: PlanLearner = implementation(spec, "plan_impl")
    planned = plan(spec, shape)
    count = "all" if spec.images is None else f"{spec.images} randomly drawn"
    ridges = ", ".join(f"{ridge:g}" for ridge in spec.ridge)
    selection = "ridge" if len(spec.ridge) == 1 else "ridge selected on validation images among"
    training = (f"learns from {count} training images, read as {spec.inputs}", f"{selection} {ridges}")
    return replace(planned, description=(*planned.description, *training))


def selected(spec: Learner, rounds: Sequence[Round]) -> Round:
    """Return the round that counts: the first of the most accurate on validation images, or the last."""
    if not selects_round(spec):
        return rounds[-1]
    return max(rounds, key=lambda done: (done.metrics["val/acc"], -done.number))


def selects_round(spec: Learner) -> bool:
    """Return whether validation images select the round that counts."""
    return isinstance(spec, Iterated) and spec.select == "validation"


def harvest(
    spec: Learner, rounds: Sequence[Round], shape: ImageShape, *, origin: str, images: int
) -> Harvest | None:
    """Return what was learned as covariances; None if the learner learns no features.

    A learner with several levels gives, for each level, the covariance of that level's selected round.
    """
    parts = []
    for level, layer in enumerate(plan_learner(spec, shape).layers):
        counts = selected(spec, [done for done in rounds if len(done.covariances) == level + 1])
        source = f"{STATISTIC} {layer.layer} of {origin}, round {counts.number}"
        covariance = _covariance(counts.covariances[level], layer, source, images)
        parts.append(replace(layer, covariance=covariance))
    return Harvest(origin, STATISTIC, tuple(parts)) if parts else None


def _covariance(matrix_DD: Tensor | None, layer: Harvested, source: str, images: int) -> Covariance:
    geometry = layer.geometry
    patch = PatchGeometry(geometry.patch_channels, geometry.kernel_size)
    if matrix_DD is None:
        root_DD = torch.eye(patch.size, dtype=torch.float64)
        notes = ("nothing learned: the plain kernel was selected, so the identity",)
        return measured(root_DD, patch, source=source, samples=images, notes=notes)
    root_DD, _ = symmetric_root(matrix_DD.double())
    return measured(root_DD, patch, source=source, samples=images)


def planned_harvest(spec: Learner, shape: ImageShape, origin: str) -> Harvest:
    """Return the layers and geometries that a learner will give covariances for.

    Raises:
        UserError: If it learns no features.
    """
    layers = plan_learner(spec, shape).layers
    if not layers:
        raise UserError(
            f"{origin}: `{spec.type_name()}` learns no features to initialize from; "
            "use `rfm`, `convrfm` or `deep_convrfm`",
            code="MIM-K001",
        )
    return Harvest(origin, STATISTIC, layers)


def kernel_dtype(spec: Learner) -> torch.dtype:
    """Return the dtype in which a learner's kernel is computed."""
    return torch.float32 if getattr(spec, "precision", "fp64") == "fp32" else torch.float64
