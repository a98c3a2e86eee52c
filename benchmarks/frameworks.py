"""The training loop beside those of other tools."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from benchmarks.loops import (
    LR,
    MEAN,
    PADDING,
    STD,
    LoopOptions,
    ResidentBatches,
    bare,
    fused_adamw,
    loop_by_hand,
    network,
    train_window,
)
from benchmarks.measurement import Cell, Column, Result, Table, measurement, option
from benchmarks.timing import alternate, compare, keep_freed_memory, synchronize
from mimetic.data.dataset import Dataset
from mimetic.models.published import import_library
from mimetic.train.devices import pick_precision

Window = Callable[[], float]
"""Trains some steps and returns images per second."""

Make = Callable[[nn.Module, Dataset, LoopOptions], Window]


# --------------------------------------------------------------------------------------------- images
class PilImages(torch.utils.data.Dataset[tuple[Any, int]]):
    """PIL images with a transform for each, as image folders give them."""

    def __init__(self, dataset: Dataset, transform: Callable[[Any], Any] | None = None) -> None:
        rows = dataset.train.pixels_NCHW.permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(row) for row in rows]
        self.labels = dataset.train.labels_N.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return an image and its class."""
        image = self.images[index]
        return image if self.transform is None else self.transform(image), self.labels[index]


def pil_loader(dataset: Dataset, batch: int) -> Any:
    """Return the DataLoader of a tutorial: crop, flip, to a tensor, normalize."""
    steps = import_library("torchvision").transforms
    transform = steps.Compose(
        [
            steps.RandomCrop(32, padding=PADDING),
            steps.RandomHorizontalFlip(),
            steps.ToTensor(),
            steps.Normalize(MEAN, STD),
        ]
    )
    return torch.utils.data.DataLoader(PilImages(dataset, transform), batch, shuffle=True, drop_last=True)


def resident(dataset: Dataset, options: LoopOptions) -> ResidentBatches:
    """Return batches on the device."""
    return ResidentBatches(dataset, options.batch, options.where)


def loader(dataset: Dataset, options: LoopOptions) -> Any:
    """Return a DataLoader."""
    return pil_loader(dataset, options.batch)


# --------------------------------------------------------------------------------------------- tools
def lightning(
    model: nn.Module, dataset: Dataset, options: LoopOptions, *, feed: Callable[..., Any]
) -> Window:
    """Return a window of Lightning's Trainer, from the start of its training to the end."""
    import lightning as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device, batches = options.where, feed(dataset, options)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.seconds, self.started = model, 0.0, 0.0

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.model(images.contiguous(memory_format=torch.channels_last)), labels)

        def configure_optimizers(self) -> Any:
            optimizer = fused_adamw(self.model)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=options.steps + 1)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_start(self) -> None:
            synchronize(device)
            self.started = time.perf_counter()

        def on_train_end(self) -> None:
            synchronize(device)
            self.seconds = time.perf_counter() - self.started

    def window() -> float:
        model.to(memory_format=torch.channels_last)
        model.train()  # Lightning leaves modes as they are, and the window before ended with an evaluation
        module = Module()
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if pick_precision("auto", device) == "bf16" else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches)
        return options.batch * options.steps / module.seconds

    return window


def accelerate(
    model: nn.Module, dataset: Dataset, options: LoopOptions, *, feed: Callable[..., Any]
) -> Window:
    """Return a window of the loop of Accelerate's documentation."""
    from accelerate import Accelerator

    device, batches = options.where, feed(dataset, options)
    bf16 = pick_precision("auto", device) == "bf16"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 else "no")

    def window() -> float:
        model.to(device, memory_format=torch.channels_last)
        optimizer = fused_adamw(model)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=options.steps + 1)
        prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
        prepared_batches = batches if isinstance(batches, ResidentBatches) else accelerator.prepare(batches)
        synchronize(device)
        started = time.perf_counter()
        prepared.train()
        for images, labels in prepared_batches:
            optimizer.zero_grad()
            logits = prepared(images.contiguous(memory_format=torch.channels_last))
            accelerator.backward(F.cross_entropy(logits, labels))
            optimizer.step()
            schedule.step()
        synchronize(device)
        seconds = time.perf_counter() - started
        accelerator.free_memory()
        return options.batch * options.steps / seconds

    return window


def timm(model: nn.Module, dataset: Dataset, options: LoopOptions) -> Window:
    """Return a window of timm's train.py: its loader, its optimizer, its loop."""
    import_library("torchvision")
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    batches = create_loader(
        PilImages(dataset),
        input_size=(3, 32, 32),
        batch_size=options.batch,
        is_training=True,
        use_prefetcher=options.where.type == "cuda",
        mean=MEAN,
        std=STD,
        num_workers=0,
        persistent_workers=False,
        device=options.where,
    )
    make_optimizer = partial(create_optimizer_v2, opt="adamw", lr=LR, weight_decay=0.01)
    return loop_by_hand(model, batches, options, make_optimizer)


def mimetic(model: nn.Module, dataset: Dataset, options: LoopOptions) -> Window:
    """Return a window of `mimetic.train`."""
    return lambda: train_window(model, dataset, options).images_per_second


OURS = "mimetic"
TOOLS: dict[str, Make] = {
    "bare loop": bare,
    "Lightning, resident": partial(lightning, feed=resident),
    "Accelerate, resident": partial(accelerate, feed=resident),
    "Lightning, loader": partial(lightning, feed=loader),
    "Accelerate, loader": partial(accelerate, feed=loader),
    "timm, its loader": timm,
}
KEEP_MEMORY = (OURS, "bare loop")
"""Those that keep the memory a step frees, as mimetic's workers do and a loop tuned by hand would."""


# --------------------------------------------------------------------------------------------- comparison
@dataclass(frozen=True, kw_only=True, slots=True)
class FrameworkOptions(LoopOptions):
    """Flags of `frameworks`."""

    windows: int = option(2, "windows of each tool and round")
    rounds: int = option(7, "rounds, each with new processes")
    beside: str = option("", "only tools whose name contains this, e.g. resident")


@measurement(
    takes="30 min", beside="bare", model="convmixer", dim=8, depth=1, batch=8, steps=2, windows=2, rounds=1
)
def frameworks(options: FrameworkOptions) -> Result:
    """Compare images per second with a bare loop, Lightning, Accelerate and timm.

    One model, one optimizer (AdamW, fused), one schedule (one-cycle), one batch size, in turn. Each tool has
    a process of its own, as its users have it; a process is some per cent faster or slower than the next for
    all of its life, so every round has new ones. Batches come from the same gather on the device for all
    (`resident`: what a loop costs), and from a DataLoader without workers over PIL images (`loader`: what a
    user of the tool writes). Lightning and Accelerate: `pip install --group bench`.
    """
    rows = [row for name in options.models() for row in _compare(name, options)]
    columns = (
        Column("model"),
        Column("beside"),
        Column("mimetic, images/s", ".0f"),
        Column("its images/s", ".0f"),
        Column("median ratio", ".3f"),
        Column("quartiles", ".3f"),
    )
    return Result((Table(columns, rows),))


def _compare(name: str, options: FrameworkOptions) -> Iterator[tuple[Cell, ...]]:
    """Yield the rows of one model."""
    found: dict[str, list[tuple[float, float]]] = {tool: [] for tool in TOOLS if options.beside in tool}
    for _ in range(options.rounds):
        with ExitStack() as stack:
            windows = {tool: _in_process(tool, name, options, stack) for tool in (OURS, *found)}
            for window in windows.values():  # the first of each warms up
                window()
            for tool in found:
                found[tool] += alternate(windows[OURS], windows[tool], options.windows)
    for tool, pairs in found.items():
        yield name, tool, *compare(pairs)


def _in_process(tool: str, name: str, options: FrameworkOptions, stack: ExitStack) -> Window:
    """Return a tool's window in a process that lives as long as the stack."""
    process = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
    return lambda: process.submit(_images_per_second, tool, name, options).result()


def _images_per_second(tool: str, name: str, options: FrameworkOptions) -> float:
    return _window(tool, name, options)()


@cache
def _window(tool: str, name: str, options: FrameworkOptions) -> Window:
    """Return a tool's window, made once in the process it has to itself."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    if tool in KEEP_MEMORY:
        keep_freed_memory()
    make = mimetic if tool == OURS else TOOLS[tool]
    return make(network(options.models()[name]), options.images(), options)
