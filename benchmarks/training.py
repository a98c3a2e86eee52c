"""The training loop: against a loop written by hand, against the device's arithmetic, and its input path."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.frameworks import pil_loader
from benchmarks.loops import (
    MEAN,
    PADDING,
    STD,
    ConvMixerOptions,
    LoopOptions,
    bare,
    network,
    random_images,
    train_window,
)
from benchmarks.measurement import Column, DeviceOptions, Result, Table, measurement, option
from benchmarks.timing import alternate, compare, fastest, keep_freed_memory, synchronize, timed
from mimetic.data.augment import augmenter
from mimetic.data.config import Crop, Flip
from mimetic.errors import RunError
from mimetic.models.config import Model
from mimetic.train.batches import decoder
from mimetic.train.devices import pick_precision, set_arithmetic


# --------------------------------------------------------------------------------------------- throughput
@dataclass(frozen=True, kw_only=True, slots=True)
class ThroughputOptions(LoopOptions):
    """Flags of `throughput`."""

    least: float = option(0.97, "smallest ratio that passes")


@measurement(takes="5 min", dim=8, patch=4, depth=1, batch=8, steps=2, windows=3, least=0.0)
def throughput(options: ThroughputOptions) -> Result:
    """Compare training, images per second, with a bare loop written by hand.

    Both train the same model on the same resident bytes with crop, flip, AdamW and one-cycle, in one process
    and in turn. Each pair gives a ratio, whose median does not depend on what else the machine computes. The
    bare loop computes no metrics and has no journal, no keyed streams and no checkpoints.
    """
    keep_freed_memory()  # as workers do; for every loop of this process
    rows = [_compare_loops(name, spec, options) for name, spec in options.models().items()]
    heads = (
        Column("model"),
        Column("mimetic, images/s", ".0f"),
        Column("bare loop, images/s", ".0f"),
        Column("median ratio", ".3f"),
        Column("quartiles", ".3f"),
        Column("end of a training, ms", ".0f"),
    )
    slow = [f"{row[0]}: a ratio below {options.least}." for row in rows if row[3] < options.least]
    return Result((Table(heads, rows),), failures=tuple(slow))


def _compare_loops(name: str, spec: Model, options: ThroughputOptions) -> tuple[Any, ...]:
    """Return a row: medians in images per second, their paired ratio, and the end of a training."""
    dataset, model = options.images(), network(spec)
    by_hand = bare(model, dataset, options)
    closing = []

    def ours() -> float:
        window = train_window(model, dataset, options)
        closing.append(1e3 * window.closing)
        return window.images_per_second

    ours(), by_hand()  # warm up: allocator, autotuning
    medians_and_ratio = compare(alternate(ours, by_hand, options.windows))
    return name, *medians_and_ratio, statistics.median(closing)


# --------------------------------------------------------------------------------------------- ceiling
@dataclass(frozen=True, kw_only=True, slots=True)
class CeilingOptions(ConvMixerOptions):
    """Flags of `ceiling`."""

    dim: int = option(256, "channels of the ConvMixer")
    depth: int = option(8, "blocks of the ConvMixer")
    kernel: int = option(9, "kernel size of the ConvMixer")
    images: int = option(512, "images per epoch")
    epochs: int = option(1, "epochs")
    compile: tuple[str, ...] = option(("off",), "off, on or both in turn", ["off", "on"])
    side: int = option(0, "side of the matrices that are multiplied; 0 for 2048 on a CPU and 8192 on a GPU")


@measurement(takes="2 min", dim=8, depth=1, kernel=3, patch=4, batch=32, images=64, epochs=2, side=64)
def ceiling(options: CeilingOptions) -> Result:
    """Measure the share of the device's arithmetic that one training uses.

    Training is `mimetic.train` with crop, flip, AdamW and one-cycle; of its steps, and end to end with
    compiling, saving and evaluations of a fifth as many images before training and after each epoch. The
    ceiling is what matrix products reach on this device in the same arithmetic (bf16 on a GPU that has it,
    float32 on a CPU), in the same process, before and after; the higher one counts. An image takes three
    times the operations of its forward pass, which PyTorch counts: backward takes two.
    """
    keep_freed_memory()
    device, spec = options.where, options.convmixer()
    precision = pick_precision("auto", device)
    set_arithmetic(precision, device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    dataset = random_images(options.images, held_out=max(options.images // 5, 1))

    side = options.side or (8192 if device.type == "cuda" else 2048)
    before = _matrix_products(side, device, dtype)
    rows: list[tuple[str, float, float]] = []
    failures = []
    for mode in options.compile:
        work = partial(train_window, network(spec), dataset, options, compiled=mode == "on")
        try:
            seconds, window = timed(partial(work, epochs=options.epochs))
        except RunError as error:
            failures.append(f"compile {mode}: {error}")
            continue
        rows.append((mode, window.images_per_second, options.images * options.epochs / seconds))
    best, each = max(before, _matrix_products(side, device, dtype)), _operations(spec)
    columns = (
        Column("compile"),
        Column("images/s of the steps", ".0f"),
        Column("share of the ceiling", ".1%"),
        Column("images/s end to end", ".0f"),
        Column("share", ".1%"),
    )
    shares = [(mode, speed, speed * each / best, whole, whole * each / best) for mode, speed, whole in rows]
    note = (
        f"ConvMixer-{options.dim}/{options.depth}, {precision}, batch {options.batch}, "
        f"{options.images} images × {options.epochs} epochs, {each / 1e9:.2f} Gflop an image; "
        f"matrix products reach {best / 1e9:.0f} Gflop/s."
    )
    return Result((Table(columns, shares),), (note,), tuple(failures))


def _operations(spec: Model) -> int:
    """Return the floating-point operations of training on one image; a multiplication with its sum is two."""
    model = network(spec).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return 3 * counter.get_total_flops()


def _matrix_products(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return operations per second of products of square matrices, the fastest of ten."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / fastest(lambda: left @ right, times=10, device=device)


# --------------------------------------------------------------------------------------------- inputs
@dataclass(frozen=True, kw_only=True, slots=True)
class InputOptions(DeviceOptions):
    """Flags of `inputs`."""

    batch: int = option(128, "images per batch")
    batches: int = option(8, "batches per window")
    windows: int = option(15, "windows of each")


@measurement(takes="1 min", batch=8, batches=2, windows=2)
def inputs(options: InputOptions) -> Result:
    """Compare crop, flip and normalize of whole batches with a DataLoader over PIL images.

    In turn within one process: mimetic's input path, and a DataLoader without workers over PIL images with
    torchvision's transforms, as tutorials have it. Seconds are processor time on a CPU and wall time on a
    GPU.
    """
    device = options.where
    dataset = random_images(options.batch * options.batches)
    pixels_NCHW = dataset.train.pixels_NCHW.to(device)
    augment = augmenter((Crop(padding=PADDING), Flip()), mean=MEAN)
    decode = decoder(MEAN, STD, device=device, channels_last=True)
    generator = torch.Generator(device)
    tutorial = pil_loader(dataset, options.batch)

    def resident() -> None:
        for chosen_B in torch.randperm(len(pixels_NCHW)).to(device).split(options.batch):
            decode(augment(pixels_NCHW.index_select(0, chosen_B), generator))
        synchronize(device)

    def loader() -> None:
        for images, _ in tutorial:
            images.to(device).contiguous(memory_format=torch.channels_last)
        synchronize(device)

    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def microseconds(work: Callable[[], None]) -> Callable[[], float]:
        return lambda: 1e6 * timed(work, clock=clock)[0] / len(pixels_NCHW)

    resident(), loader()
    theirs, mine, ratio, spread = compare(
        alternate(microseconds(loader), microseconds(resident), options.windows)
    )
    columns = (
        Column("mimetic, µs/image", ".1f"),
        Column("PIL DataLoader, µs/image", ".1f"),
        Column("median ratio", ".1f"),
        Column("quartiles", ".1f"),
    )
    return Result((Table(columns, [(mine, theirs, ratio, spread)]),))
