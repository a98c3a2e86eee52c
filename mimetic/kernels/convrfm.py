"""ConvRFM and Deep ConvRFM: features of patches learned by a kernel machine (arXiv 2309.00570).

A round of ConvRFM fits the CNTK on patches times F, takes the patch AGOP G of the predictor at a few
training images, and goes on with

    F = G^½, M = G   (power ½, published as `sqrtM`)      F = G, M = G²   (power 1)

each divided by its Frobenius norm.

Deep ConvRFM does so for a kernel of depth L, then replaces the images by a linear random convolution whose
filters are drawn with the best M, and begins again with a kernel of depth L − 1.

Shapes: D patch coordinates, O filters.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.covariance.linalg import eigh, multiply, symmetric_root
from mimetic.data.dataset import Images
from mimetic.errors import UserError
from mimetic.kernels.agop import patch_agop
from mimetic.kernels.cntk import Tick, kernel, kernel_rows, no_tick
from mimetic.kernels.config import Convolutional, ConvRfm, DeepConvRfm
from mimetic.kernels.patches import Architecture, Features
from mimetic.kernels.problem import Problem, with_features
from mimetic.kernels.rounds import Fitted, Round, fitted, selected
from mimetic.streams import generator


def architecture_of(spec: Convolutional, given: Problem, *, less: int = 0) -> Architecture:
    """Return the kernel's network.

    Raises:
        UserError: If the images are too small for it.
    """
    found = Architecture(spec.patch_size, spec.depth - less, spec.padding)
    _, _, height, width = given.features(given.train.pixels_NCHW[:1]).shape
    if not found.grids(height, width):
        message = f"learner: images of {height}×{width} are too small for {found.depth} convolutions of side "
        raise UserError(message + f"{spec.patch_size}; lower `depth` or `patch_size`, or set `padding: true`")
    return found


def cntk_round(
    spec: Convolutional,
    given: Problem,
    architecture: Architecture,
    factor_DD: Tensor | None,
    tick: Tick = no_tick,
) -> Fitted:
    """Fit the CNTK on patches times F."""
    images = given.train.pixels_NCHW
    features = given.features
    counts = [len(images) / 2.0, *(float(len(split)) for split in given.held_out().values())]
    ticks = _shares(counts, tick)
    kernel_NN = kernel(images, architecture, features=features, factor_DD=factor_DD, tick=next(ticks))

    def rows(split: Images) -> Iterator[Tensor]:
        return kernel_rows(
            split.pixels_NCHW,
            images,
            architecture,
            features=features,
            factor_DD=factor_DD,
            tick=next(ticks),
        )

    return fitted(kernel_NN, given, rows, spec.ridge)


def convrfm(spec: ConvRfm, given: Problem, *, tick: Tick = no_tick) -> Iterator[Round]:
    """Yield the rounds of ConvRFM, the fixed kernel first."""
    architecture = architecture_of(spec, given)
    for number, (found, matrix_DD) in enumerate(_rounds_of_a_level(spec, given, architecture, tick)):
        yield Round(number, found.metrics, (matrix_DD,))


def deep_convrfm(spec: DeepConvRfm, given: Problem, *, seed: int, tick: Tick = no_tick) -> Iterator[Round]:
    """Yield the rounds of Deep ConvRFM, level by level.

    Args:
        spec: Its section.
        given: Images and labels.
        seed: Seed of the random convolutions.
        tick: Told the share of a round that is done.
    """
    matrices: list[Tensor | None] = []
    number = 0
    for level in range(spec.depth):
        architecture = architecture_of(spec, given, less=level)
        rounds = []
        for found, matrix_DD in _rounds_of_a_level(spec, given, architecture, tick):
            rounds.append(Round(number, found.metrics, (*matrices, matrix_DD)))
            number += 1
            yield rounds[-1]
        matrices.append(selected(rounds, spec.select).covariances[-1])
        channels = given.features(given.train.pixels_NCHW[:1]).shape[1]
        weight = random_filters(spec, matrices[-1], channels=channels, seed=seed, level=level)
        given = with_features(given, _convolved(given.features, weight, spec))


def _rounds_of_a_level(
    spec: ConvRfm, given: Problem, architecture: Architecture, tick: Tick
) -> Iterator[tuple[Fitted, Tensor | None]]:
    """Yield each round's predictor with the M its kernel has."""
    factor_DD: Tensor | None = None
    matrix_DD: Tensor | None = None
    for number in range(spec.rounds + 1):
        found = cntk_round(spec, given, architecture, factor_DD, tick)
        yield found, matrix_DD
        if number < spec.rounds:
            agop_DD = patch_agop(
                given.train.pixels_NCHW[: spec.agop_images],
                given.train.pixels_NCHW,
                found.alpha_RNK[-1 if spec.compat else found.chosen],
                architecture,
                features=given.features,
                factor_DD=factor_DD,
                tick=lambda _share: tick(1.0),
            )
            factor_DD, matrix_DD = learned(agop_DD, power=spec.power, threshold=spec.threshold)


def learned(agop_DD: Tensor, *, power: float, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return F = G^power and M = F², each of Frobenius norm 1.

    Args:
        agop_DD: The AGOP G; eigenvalues below zero, which rounding makes, count as zero.
        power: 1 or ½.
        threshold: Share of the lowest eigenvalues set to zero.
    """
    values_D, vectors_DD = eigh(agop_DD)
    values_D = values_D.clamp(min=0.0)
    values_D[: int(threshold * len(values_D))] = 0.0

    def matrix(exponent: float) -> Tensor:
        found_DD = multiply(vectors_DD * values_D.pow(exponent), vectors_DD.T)
        norm = float(found_DD.norm())
        return found_DD / norm if norm > 0.0 else found_DD

    return matrix(power), matrix(2.0 * power)


def random_filters(
    spec: DeepConvRfm, matrix_DD: Tensor | None, *, channels: int, seed: int, level: int
) -> Tensor:
    """Return filters of one random convolution, (O, C, side, side) float64.

    Rows are N(0, M), or N(0, M/tr M) with `unit_trace`; without an M PyTorch's own law of a convolution,
    uniform within ±1/√D.
    """
    shape = (spec.width, channels, spec.patch_size, spec.patch_size)
    size = shape[1] * shape[2] * shape[3]
    draws = generator(seed, "learner", "filters", level)
    if matrix_DD is None:
        uniform_OD = torch.rand(spec.width, size, dtype=torch.float64, generator=draws)
        return uniform_OD.mul_(2.0).sub_(1.0).div_(size**0.5).view(shape)
    noise_OD = torch.randn(spec.width, size, dtype=torch.float64, generator=draws)
    root_DD, _ = symmetric_root(matrix_DD / matrix_DD.trace() if spec.unit_trace else matrix_DD)
    return multiply(noise_OD, root_DD).view(shape)


def _convolved(features: Features, weight_OIHW: Tensor, spec: DeepConvRfm) -> Features:
    """Return the features followed by a convolution without activation, computed where they are needed."""
    padding = spec.patch_size // 2 if spec.padding else 0

    def read(pixels_NCHW: Tensor) -> Tensor:
        images_NCHW = features(pixels_NCHW)
        found_NCHW: Tensor = functional.conv2d(images_NCHW, weight_OIHW.to(images_NCHW), padding=padding)
        return found_NCHW

    return read


def _shares(counts: list[float], tick: Tick) -> Iterator[Callable[[float], None]]:
    """Yield a tick for each part of the work, its share in proportion to the pairs it has."""
    total, before = sum(counts), 0.0
    for count in counts:
        yield partial(_told, tick, before / total, count / total)
        before += count


def _told(tick: Tick, before: float, part: float, share: float) -> None:
    tick(before + part * share)
