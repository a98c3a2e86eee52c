"""From a `learner:` section to rounds, and from what it learned to a covariance others can start from.

A section joins by two functions: `rounds.register`, which learns, and `layers.register`, which says for
which layers of a network there will be a covariance, before anything is learned.

Shapes: D patch coordinates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from mimetic.covariance.covariance import Covariance, PatchGeometry, measured
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.linalg import symmetric_root
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.kernels.cntk import Tick, no_tick
from mimetic.kernels.config import Cntk, Convolutional, ConvRfm, DeepConvRfm, Learner, Rfm
from mimetic.kernels.convrfm import architecture_of, cntk_round, convrfm, deep_convrfm
from mimetic.kernels.problem import Problem
from mimetic.kernels.rfm import rfm
from mimetic.kernels.rounds import Round, selected, selection

STATISTIC = "learned"
"""Statistic of the harvests that come from learners."""


@singledispatch
def rounds(spec: Learner, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:  # noqa: ARG001
    """Yield what each round of a learner comes to; others join by `rounds.register(TheirSpec)`.

    Args:
        spec: The section.
        given: Images and labels.
        seed: Seed of what the learner draws.
        tick: Told the share of the round that is done; it may raise to end it.

    Raises:
        UserError: If the images do not fit the learner.
    """
    raise UserError(f"learner `{spec.type_name()}` is known to the language but nothing here carries it out")


@rounds.register
def _rfm(spec: Rfm, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:  # noqa: ARG001
    yield from rfm(spec, given)


@rounds.register
def _cntk(spec: Cntk, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:  # noqa: ARG001
    found = cntk_round(spec, given, architecture_of(spec, given), None, tick)
    yield Round(0, found.metrics, ())


@rounds.register
def _convrfm(spec: ConvRfm, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:  # noqa: ARG001
    yield from convrfm(spec, given, tick=tick)


@rounds.register
def _deep_convrfm(spec: DeepConvRfm, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:
    yield from deep_convrfm(spec, given, seed=seed, tick=tick)


@singledispatch
def layers(spec: Learner, shape: ImageShape) -> tuple[Harvested, ...]:  # noqa: ARG001
    """Return the layers a learner will have covariances for, blank; none where it learns no features."""
    return ()


@layers.register
def _rfm_layers(_spec: Rfm, shape: ImageShape) -> tuple[Harvested, ...]:
    size = shape.channels * shape.height * shape.width
    return (Harvested("images", "linear", 0.0, Geometry(size, size)),)


@layers.register
def _convrfm_layers(spec: ConvRfm, shape: ImageShape) -> tuple[Harvested, ...]:
    return (_patches(0, 1, spec, channels=shape.channels, filters=shape.channels * spec.patch_size**2),)


@layers.register
def _deep_convrfm_layers(spec: DeepConvRfm, shape: ImageShape) -> tuple[Harvested, ...]:
    channels = (shape.channels, *[spec.width] * (spec.depth - 1))
    return tuple(
        _patches(level, spec.depth, spec, channels=inputs, filters=spec.width)
        for level, inputs in enumerate(channels)
    )


def _patches(level: int, count: int, spec: Convolutional, *, channels: int, filters: int) -> Harvested:
    side = (spec.patch_size, spec.patch_size)
    geometry = Geometry(channels, filters, side, (1, 1))
    return Harvested(f"patches.{level}", "conv", level / max(count - 1, 1), geometry)


def harvest(
    spec: Learner, found: Sequence[Round], shape: ImageShape, *, origin: str, images: int
) -> Harvest | None:
    """Return what was learned as covariances; None where the learner learns no features.

    Of a learner with several levels each gives that of its own round that counts.

    Args:
        spec: The learner's section.
        found: All rounds.
        shape: Shape of the images.
        origin: The learner, as messages and plans show it.
        images: Training images it learned from.
    """
    blank = layers(spec, shape)
    if not blank:
        return None
    parts = []
    for level, part in enumerate(blank):
        there = [done for done in found if len(done.covariances) == level + 1]
        counts = selected(there, selection(spec))
        source = f"{STATISTIC} {part.layer} of {origin}, round {counts.number}"
        matrix_DD = counts.covariances[level]
        parts.append(replace(part, covariance=_covariance(matrix_DD, part, source, images)))
    return Harvest(origin, STATISTIC, tuple(parts))


def _covariance(matrix_DD: Tensor | None, part: Harvested, source: str, images: int) -> Covariance:
    geometry = part.geometry
    patch = PatchGeometry(geometry.patch_channels, geometry.kernel_size)
    if matrix_DD is None:
        root_DD = torch.eye(patch.size, dtype=torch.float64)
        notes = ("nothing learned: the plain kernel counts, so the identity",)
        return measured(root_DD, patch, source=source, samples=images, notes=notes)
    root_DD, _ = symmetric_root(matrix_DD.double())
    return measured(root_DD, patch, source=source, samples=images)


def prospect(spec: Learner, shape: ImageShape, origin: str) -> Harvest:
    """Return what a learner will give, before it has learned: layers and geometries alone.

    Raises:
        UserError: If it learns no features.
    """
    blank = layers(spec, shape)
    if not blank:
        message = f"{origin}: `{spec.type_name()}` learns no features, so nothing can begin from it; "
        raise UserError(message + "use `rfm`, `convrfm` or `deep_convrfm`")
    return Harvest(origin, STATISTIC, blank)


def arithmetic(spec: Learner) -> torch.dtype:
    """Return what a learner's kernel is computed in."""
    return torch.float32 if getattr(spec, "precision", "fp64") == "fp32" else torch.float64
