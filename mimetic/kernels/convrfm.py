"""ConvRFM and Deep ConvRFM: features of patches learned by a kernel machine (arXiv 2309.00570).

A round of ConvRFM fits the CNTK on patches times F, computes the patch AGOP G of the predictor at a few
training images, and continues with

    F = G^½, M = G   (power ½, published as `sqrtM`)      F = G, M = G²   (power 1)

each divided by its Frobenius norm. A threshold applies to F = G^½ alone, as in the published code: M, the
covariance of the filters of Deep ConvRFM, has all of G.

Deep ConvRFM does this for a kernel of depth L, then replaces the images by a linear random convolution whose
filters have the covariance M of the best round, and repeats it with a kernel of depth L − 1.

Shapes: D patch coordinates, O filters.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mimetic.covariance.harvest import Harvested
from mimetic.covariance.linalg import eigh, multiply, symmetric_root
from mimetic.data.dataset import Images
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.kernels.agop import patch_agop
from mimetic.kernels.cntk import kernel, kernel_rows
from mimetic.kernels.config import Cntk, Convolutional, ConvRfm, DeepConvRfm
from mimetic.kernels.learn import LearnerPlan, Round, selected
from mimetic.kernels.patches import Architecture, Features, PatchInputs, Progress
from mimetic.kernels.problem import Problem
from mimetic.kernels.ridge import Fitted, fit_and_score
from mimetic.streams import generator


def cntk(spec: Cntk, problem: Problem) -> Iterator[Round]:
    """Yield the one round of the fixed kernel."""
    yield Round(0, cntk_round(spec, problem, architecture_of(spec, problem), None).metrics, ())


def plan_cntk(spec: Cntk, shape: ImageShape) -> LearnerPlan:
    """Describe the fixed kernel, which learns no features."""
    return LearnerPlan((_kernel_text(spec, shape, spec.depth),))


def plan_convrfm(spec: ConvRfm, shape: ImageShape) -> LearnerPlan:
    """Describe ConvRFM, which gives the covariance of patches."""
    layers = (_patch_layer(0, 1, spec, channels=shape.channels, filters=shape.channels * spec.patch_size**2),)
    return LearnerPlan((_kernel_text(spec, shape, spec.depth), _rounds_text(spec)), layers)


def plan_deep_convrfm(spec: DeepConvRfm, shape: ImageShape) -> LearnerPlan:
    """Describe Deep ConvRFM, which gives the covariance of patches at every level."""
    kernels, layers = [], []
    for level in range(spec.depth):
        channels = shape.channels if level == 0 else spec.width
        less = 0 if spec.padding else (spec.patch_size - 1) * level
        inputs = ImageShape(channels, shape.height - less, shape.width - less, shape.num_classes)
        kernels.append(f"level {level}: {_kernel_text(spec, inputs, spec.depth - level)}")
        layers.append(_patch_layer(level, spec.depth, spec, channels=channels, filters=spec.width))
    between = f"between levels a random convolution of {spec.width} filters with the learned covariance"
    return LearnerPlan((*kernels, _rounds_text(spec), between), tuple(layers))


def _patch_layer(level: int, count: int, spec: Convolutional, *, channels: int, filters: int) -> Harvested:
    geometry = Geometry(channels, filters, (spec.patch_size, spec.patch_size), (1, 1))
    return Harvested(f"patches.{level}", "conv", level / max(count - 1, 1), geometry)


def _kernel_text(spec: Convolutional, shape: ImageShape, depth: int) -> str:
    grids = _checked_grids(Architecture(spec.patch_size, depth, spec.padding), shape.height, shape.width)
    positions = " → ".join(f"{rows}×{columns}" for rows, columns in grids)
    plural = "" if depth == 1 else "s"
    patch = f"{shape.channels}×{spec.patch_size}×{spec.patch_size}"
    return f"CNTK of {depth} convolution{plural} over patches of {patch}, positions {positions}"


def _rounds_text(spec: ConvRfm) -> str:
    root = ", its square root" if spec.power != 1.0 else ""
    cut = f" without the lowest {spec.threshold:.0%} of eigenvalues" if spec.threshold > 0.0 else ""
    agop = f"the AGOP at {spec.agop_images} images{root}{cut}"
    return f"{spec.rounds} rounds, patches then multiplied by {agop}"


def _checked_grids(architecture: Architecture, height: int, width: int) -> tuple[tuple[int, int], ...]:
    grids = architecture.grids(height, width)
    if not grids:
        raise UserError(
            f"images of {height}×{width} are too small for {architecture.depth} convolutions of side "
            f"{architecture.patch_size}; lower `depth` or `patch_size`, or set `padding: true`",
            code="MIM-K030",
        )
    return grids


def architecture_of(spec: Convolutional, problem: Problem, *, less: int = 0) -> Architecture:
    """Return the kernel's network, with `less` convolutions less than configured.

    Raises:
        UserError: If the images are too small for it.
    """
    architecture = Architecture(spec.patch_size, spec.depth - less, spec.padding)
    _, _, height, width = problem.features(problem.train.pixels_NCHW[:1]).shape
    _checked_grids(architecture, height, width)
    return architecture


def cntk_round(
    spec: Convolutional, problem: Problem, architecture: Architecture, factor_DD: Tensor | None
) -> Fitted:
    """Fit the CNTK on patches times F."""
    images, inputs = problem.train.pixels_NCHW, PatchInputs(architecture, problem.features, factor_DD)
    # Half of the pairs of training images are computed, and all pairs with other images.
    pairs = [len(images) / 2.0, *(float(len(split)) for split in problem.evaluation_splits().values())]
    parts = _split_progress(problem.progress, pairs)
    kernel_NN = kernel(images, inputs, progress=next(parts))

    def rows(split: Images) -> Iterator[Tensor]:
        return kernel_rows(split.pixels_NCHW, images, inputs, progress=next(parts))

    return fit_and_score(kernel_NN, problem, rows, spec.ridge)


def _split_progress(progress: Progress, sizes: list[float]) -> Iterator[Progress]:
    """Yield a progress callback for each part of the work, by its relative size."""
    total, before = sum(sizes), 0.0
    for size in sizes:
        yield partial(_report_part, progress, before / total, size / total)
        before += size


def _report_part(progress: Progress, start: float, part: float, fraction: float) -> None:
    progress(start + part * fraction)


def convrfm(spec: ConvRfm, problem: Problem) -> Iterator[Round]:
    """Yield the rounds of ConvRFM, the fixed kernel first."""
    architecture = architecture_of(spec, problem)
    for number, (fitted, matrix_DD) in enumerate(_level(spec, problem, architecture)):
        yield Round(number, fitted.metrics, (matrix_DD,))


def deep_convrfm(spec: DeepConvRfm, problem: Problem) -> Iterator[Round]:
    """Yield the rounds of Deep ConvRFM, level by level; the random convolutions are drawn by the seed."""
    matrices: list[Tensor | None] = []
    number = 0
    for level in range(spec.depth):
        architecture = architecture_of(spec, problem, less=level)
        rounds = []
        for fitted, matrix_DD in _level(spec, problem, architecture):
            rounds.append(Round(number, fitted.metrics, (*matrices, matrix_DD)))
            number += 1
            yield rounds[-1]
        matrices.append(selected(spec, rounds).covariances[-1])
        # The next level learns from these images after a random convolution.
        channels = problem.features(problem.train.pixels_NCHW[:1]).shape[1]
        weight = random_filters(spec, matrices[-1], channels=channels, seed=problem.seed, level=level)
        problem = replace(problem, features=_convolved(problem.features, weight, spec))


def _level(
    spec: ConvRfm, problem: Problem, architecture: Architecture
) -> Iterator[tuple[Fitted, Tensor | None]]:
    """Yield each round's predictor and the M of its kernel."""
    factor_DD: Tensor | None = None
    matrix_DD: Tensor | None = None
    for number in range(spec.rounds + 1):
        fitted = cntk_round(spec, problem, architecture, factor_DD)
        yield fitted, matrix_DD
        if number < spec.rounds:
            agop_DD = patch_agop(
                problem.train.pixels_NCHW[: spec.agop_images],
                problem.train.pixels_NCHW,
                fitted.alpha_RNK[-1 if spec.compat else fitted.index],
                PatchInputs(architecture, problem.features, factor_DD),
                progress=lambda _fraction: problem.progress(1.0),
            )
            factor_DD, matrix_DD = learned(agop_DD, power=spec.power, threshold=spec.threshold)


def learned(agop_DD: Tensor, *, power: float, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return F = G^power and M = G^(2·power), each of Frobenius norm 1.

    Args:
        agop_DD: The AGOP G; negative eigenvalues, due to rounding, are set to zero.
        power: 1 or ½.
        threshold: Fraction of the lowest eigenvalues that are zero in F.
    """
    values_D, vectors_DD = eigh(agop_DD)
    values_D = values_D.clamp(min=0.0)
    leading_D = values_D.clone()
    leading_D[: int(threshold * len(values_D))] = 0.0

    def matrix(powers_D: Tensor) -> Tensor:
        found_DD = multiply(vectors_DD * powers_D, vectors_DD.T)
        norm = float(found_DD.norm())
        return found_DD / norm if norm > 0.0 else found_DD

    return matrix(leading_D.pow(power)), matrix(values_D.pow(2.0 * power))


def random_filters(
    spec: DeepConvRfm, matrix_DD: Tensor | None, *, channels: int, seed: int, level: int
) -> Tensor:
    """Return filters of one random convolution, (O, C, side, side) float64.

    Rows are N(0, M), or N(0, M/tr M) with `unit_trace`; without an M from PyTorch's default distribution of a
    convolution, uniform in ±1/√D.
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
    """Return the features followed by a convolution without activation."""
    padding = spec.patch_size // 2 if spec.padding else 0

    def convert(pixels_NCHW: Tensor) -> Tensor:
        images_NCHW = features(pixels_NCHW)
        found_NCHW: Tensor = functional.conv2d(images_NCHW, weight_OIHW.to(images_NCHW), padding=padding)
        return found_NCHW

    return convert
