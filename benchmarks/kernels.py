"""CNTK and its patch AGOP against a plain port of the formulas."""

import math
import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from benchmarks.measurement import Column, Options, Result, Table, measurement, option
from benchmarks.timing import in_new_process, peak_memory, timed
from mimetic.kernels.agop import patch_agop
from mimetic.kernels.cntk import kernel
from mimetic.kernels.patches import Architecture, PatchInputs

BOUNDS = {"faster": 5.0, "memory": 1.25}
"""Least speedup; most growth of peak memory, beyond the kernel itself, from n/2 to n images."""

IMAGES, OUTPUTS, AGOP_IMAGES = 1000, 10, 20

DTYPES = {"float32": torch.float32, "float64": torch.float64}

SHAPE = {"channels": 3, "side": 3, "depth": 3}
"""Of the reference; `Architecture(3, 3)` is the same network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelOptions(Options):
    """Flags of `kernels`."""

    count: int = option(IMAGES, "images; also measured with half and a quarter as many")
    plain: int = option(100, "images of the reference: it stores 10,000 pairs, 0.3 GiB for each layer")
    side: int = option(32, "pixels of an image")
    dtype: str = option("float32", "arithmetic", list(DTYPES))


@measurement(takes="2 min", count=24, plain=12, side=10)
def kernels(options: KernelOptions) -> Result:
    """Compare the CNTK and its patch AGOP, 1000 images, with a plain port.

    The reference is the closed form of arXiv 2309.00570 as written: every pair of two sets at once, maps over
    all positions, the gradient by autograd once for each output. It stores maps of every pair and does not
    fit for n = 1000, so it is compared at fewer images. Mimetic computes half of the pairs, block by block,
    and folds the gradient by hand. Seconds are processor time, which does not count other work on the
    machine; each part has a process of its own, so that peak memory belongs to it alone.
    """
    run = in_new_process if options.count == IMAGES else lambda part, *arguments: part(*arguments)
    reference, small = (run(part, options, options.plain) for part in (_plain, _mimetic))
    faster = (reference.kernel + reference.agop) / (small.kernel + small.agop)
    counts = (options.count // 4, options.count // 2, options.count)
    found = [run(_mimetic, options, n) for n in counts]
    beyond = [one.gib - one.before - n * n * 8 / 2**30 for n, one in zip(counts, found, strict=True)]
    growth = beyond[-1] / max(beyond[-2], 1e-3)
    rows = [
        (options.plain, "reference", reference.kernel, reference.agop, reference.gib),
        (options.plain, "mimetic", small.kernel, small.agop, small.gib),
        *((n, "mimetic", one.kernel, one.agop, one.gib) for n, one in zip(counts, found, strict=True)),
    ]
    columns = (
        Column("n", "d"),
        Column("of"),
        *(Column(name, ".2f") for name in ("kernel, s", "AGOP, s", "peak, GiB")),
    )
    errors = run(_errors, 6)
    setting = (
        f"{options.dtype}, images of {options.side}×{options.side}×3, three convolutions, {OUTPUTS} outputs, "
        f"AGOP at {AGOP_IMAGES} images."
    )
    equal = (
        f"At {options.plain} images {faster:.1f} times as fast as the reference; equal to it in float64 on a "
        f"small case: kernel {errors[0]:.1e}, AGOP {errors[1]:.1e} relative."
    )
    memory = (
        f"Torch alone takes {found[0].before:.2f} GiB. Beyond the n×n kernel itself {beyond[-1]:.2f} GiB, "
        f"{growth:.2f} times as much as for half as many images."
    )
    bounds = {
        "The kernel differs from the reference.": errors[0] <= 1e-10,
        "The AGOP differs from the reference.": errors[1] <= 1e-8,
    }
    if options.count == IMAGES:  # with few images overheads rule
        bounds |= {
            f"Less than {BOUNDS['faster']} times as fast as the reference.": faster >= BOUNDS["faster"],
            f"Memory grows more than {BOUNDS['memory']} times.": growth <= BOUNDS["memory"],
        }
    failures = tuple(text for text, met in bounds.items() if not met)
    return Result((Table(columns, rows),), (setting, equal, memory), failures)


# --------------------------------------------------------------------------------------------- reference
def plain_kernel(patches_NPD: Tensor, others_MPD: Tensor, *, channels: int, side: int, depth: int) -> Tensor:
    """Return the CNTK of every pair from their patches, (N, M), as the formulas stand.

    Args:
        patches_NPD: Patches of some images at the positions of a square grid, times F.
        others_MPD: Those of others.
        channels: Channels of the images.
        side: Side of the convolutions.
        depth: Number of them.
    """
    grid = math.isqrt(patches_NPD.shape[1])
    sigma = torch.einsum("npd,mpd->nmp", patches_NPD, others_MPD) / channels
    own = patches_NPD.square().sum(2)[:, None] / channels
    other = others_MPD.square().sum(2)[None] / channels
    sigma, own, other = (maps.unflatten(2, (grid, grid)) for maps in (sigma, own, other))
    theta = sigma
    for layer in range(depth):
        if layer > 0:
            sigma, own, other, theta = (_sums(maps, side) for maps in (sigma, own, other, theta))
            theta = theta + sigma
        root = (own * other).sqrt()
        rho = (sigma / root).clamp(-1.0 + 1e-15, 1.0 - 1e-15)  # the slope of arccos is infinite at 1
        angle = torch.arccos(rho)
        theta = theta * (math.pi - angle) / math.pi
        sigma = root * ((1.0 - rho.square()).sqrt() + (math.pi - angle) * rho) / math.pi
    return theta.mean((2, 3)) + sigma.mean((2, 3))


def _sums(maps_NMHW: Tensor, side: int) -> Tensor:
    flat = maps_NMHW.flatten(0, 1)[:, None]
    summed = F.conv2d(flat, flat.new_ones(1, 1, side, side))
    return summed[:, 0].unflatten(0, maps_NMHW.shape[:2])


def plain_patches(images_NCHW: Tensor, side: int) -> Tensor:
    """Return every patch as (N, P, D)."""
    return F.unfold(images_NCHW, side).transpose(1, 2)


def plain_agop(
    patches_SPD: Tensor, others_MPD: Tensor, alpha_MK: Tensor, *, channels: int, side: int, depth: int
) -> Tensor:
    """Return (1/S) Σ g gᵀ of the predictor's gradients by patches, one backward for each output."""
    size = patches_SPD.shape[2]
    total_DD = patches_SPD.new_zeros(size, size)
    inputs = patches_SPD.clone().requires_grad_()
    answers_SK = plain_kernel(inputs, others_MPD, channels=channels, side=side, depth=depth) @ alpha_MK
    for o in range(alpha_MK.shape[1]):
        (gradient_SPD,) = torch.autograd.grad(answers_SK[:, o].sum(), inputs, retain_graph=True)
        flat_BD = gradient_SPD.flatten(0, 1)
        total_DD += flat_BD.T @ flat_BD
    return total_DD / len(patches_SPD)


# --------------------------------------------------------------------------------------------- parts
@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds of kernel and AGOP, and memory in GiB: the peak, and before them."""

    kernel: float
    agop: float
    gib: float
    before: float


def _images(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _alpha(count: int) -> Tensor:
    return torch.randn(count, OUTPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _errors(count: int) -> tuple[float, float]:
    """Return the largest relative differences from the reference in float64, diagonal left out.

    On the diagonal the reference, like any port, loses half of the digits to arccos at 1.
    """
    images, others = _images(count, 10), _images(2 * count, 10)[count:]
    architecture, features = Architecture(3, 3), lambda pixels: pixels
    patches, other_patches, alpha = plain_patches(images, 3), plain_patches(others, 3), _alpha(len(others))
    off = ~torch.eye(len(images), dtype=torch.bool)
    expected = plain_kernel(patches, patches, **SHAPE)
    found = kernel(images, PatchInputs(architecture, features))
    expected_agop = plain_agop(patches, other_patches, alpha, **SHAPE)
    found_agop = patch_agop(images, others, alpha, PatchInputs(architecture, features))
    return (
        float(((found - expected).abs() / expected)[off].max()),
        float((found_agop - expected_agop).norm() / expected_agop.norm()),
    )


def _mimetic(options: KernelOptions, count: int) -> Cost:
    images, dtype = _images(count, options.side).float(), DTYPES[options.dtype]
    architecture, chosen, alpha = Architecture(3, 3), images[:AGOP_IMAGES], _alpha(count)

    def features(pixels: Tensor) -> Tensor:
        return pixels.to(dtype)

    return _cost(
        options,
        partial(kernel, images, PatchInputs(architecture, features)),
        partial(patch_agop, chosen, images, alpha, PatchInputs(architecture, features)),
    )


def _plain(options: KernelOptions, count: int) -> Cost:
    patches = plain_patches(_images(count, options.side).to(DTYPES[options.dtype]), 3)
    return _cost(
        options,
        partial(plain_kernel, patches, patches, **SHAPE),
        partial(plain_agop, patches[:AGOP_IMAGES], patches, _alpha(count).to(patches), **SHAPE),
    )


def _cost(options: KernelOptions, kernel_work: partial[Tensor], agop_work: partial[Tensor]) -> Cost:
    torch.set_num_threads(options.threads)
    before = peak_memory()
    seconds = [timed(work, clock=time.process_time)[0] for work in (kernel_work, agop_work)]
    return Cost(*seconds, peak_memory(), before)
