"""Images per second of training: ours, a bare loop, timm's path, Lightning's Trainer and Accelerate.

    python benchmarks/frameworks.py                     # ConvMixer-128/4 and CIFAR-ResNet-20
    python benchmarks/frameworks.py --rounds 9 --model cifar_resnet --beside resident

One model, one optimizer (AdamW, fused), one schedule (one-cycle), one batch size, in turns. Each tool has a
process of its own, as its users have, with the settings it makes itself: ours, and the bare loop, keep
memory that a step frees. A process is some per cent faster or slower than the next for all of its life, as
its memory happens to lie, so every round has new ones.

Each tool takes its images twice where it can: as batches that are resident and augmented by the same gather
(`resident`: what its loop costs), and through a DataLoader without workers over PIL transforms (`loader`:
what a user of the tool writes). Each ratio is of neighbouring windows, and their median does not care what
else the machine was doing. Lightning and Accelerate come with `pip install mimetic[bench]`.
"""

import argparse
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from typing import Any

import torch
from common import head, keep_freed_memory, loop_parser, quartiles, row
from loops import (
    CLASSES,
    LR,
    MEAN,
    PADDING,
    STD,
    augmented,
    bare,
    models,
    ours,
    random_pictures,
    wait,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.data.dataset import Dataset
from mimetic.models.build import build
from mimetic.models.published import import_library
from mimetic.train.devices import pick_device, pick_precision

Window = Callable[[], float]


class Resident:
    """Batches that live on the device, decoded and augmented by one gather, for any loop."""

    def __init__(self, dataset: Dataset, batch: int, device: torch.device) -> None:
        self.pixels_NCHW = dataset.train.pixels_NCHW.to(device)
        self.labels_N = dataset.train.labels_N.to(device)
        mean, std = torch.tensor(MEAN, device=device), torch.tensor(STD, device=device)
        self.scale_C11, self.shift_C11 = (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]
        self.batch = batch

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.labels_N) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch."""
        order_N = torch.randperm(len(self.labels_N)).to(self.labels_N.device)
        for chosen_B in order_N.split(self.batch):
            images = augmented(self.pixels_NCHW.index_select(0, chosen_B)).float()
            images = images.mul_(self.scale_C11).add_(self.shift_C11)
            yield images.contiguous(memory_format=torch.channels_last), self.labels_N[chosen_B]


class Pictures(torch.utils.data.Dataset[tuple[Any, int]]):
    """PIL pictures with a transform for each, as image folders give them."""

    def __init__(self, dataset: Dataset, transform: Callable[[Any], Any] | None = None) -> None:
        rows = dataset.train.pixels_NCHW.permute(0, 2, 3, 1).numpy()
        self.pictures = [Image.fromarray(row) for row in rows]
        self.labels = dataset.train.labels_N.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return a picture and its class."""
        picture = self.pictures[index]
        return picture if self.transform is None else self.transform(picture), self.labels[index]


def loader(dataset: Dataset, batch: int) -> Any:
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
    return torch.utils.data.DataLoader(Pictures(dataset, transform), batch, shuffle=True, drop_last=True)


def optimized(model: nn.Module, steps: int) -> tuple[Any, Any]:
    """Return the optimizer and its schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps + 1)


def with_lightning(
    model: nn.Module, batches: Any, options: argparse.Namespace, device: torch.device
) -> Window:
    """Return a window of Lightning's Trainer, from the start of its training to the end."""
    import lightning as pl

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.seconds, self.began = model, 0.0, 0.0

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.model(images.contiguous(memory_format=torch.channels_last)), labels)

        def configure_optimizers(self) -> Any:
            optimizer, schedule = optimized(self.model, options.steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_start(self) -> None:
            wait(device)
            self.began = time.perf_counter()

        def on_train_end(self) -> None:
            wait(device)
            self.seconds = time.perf_counter() - self.began

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


def with_accelerate(
    model: nn.Module, batches: Any, options: argparse.Namespace, device: torch.device
) -> Window:
    """Return a window of the loop of Accelerate's documentation."""
    from accelerate import Accelerator

    bf16 = pick_precision("auto", device) == "bf16"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 else "no")

    def window() -> float:
        model.to(device, memory_format=torch.channels_last)
        optimizer, schedule = optimized(model, options.steps)
        prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
        feed = batches if isinstance(batches, Resident) else accelerator.prepare(batches)
        wait(device)
        began = time.perf_counter()
        prepared.train()
        for images, labels in feed:
            optimizer.zero_grad()
            logits = prepared(images.contiguous(memory_format=torch.channels_last))
            accelerator.backward(F.cross_entropy(logits, labels))
            optimizer.step()
            schedule.step()
        wait(device)
        seconds = time.perf_counter() - began
        accelerator.free_memory()
        return options.batch * options.steps / seconds

    return window


def with_timm(
    model: nn.Module, dataset: Dataset, options: argparse.Namespace, device: torch.device
) -> Window:
    """Return a window of the path of timm's train.py: its loader, its optimizer, its loop."""
    import_library("torchvision")
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    prefetch = device.type == "cuda"
    bf16 = pick_precision("auto", device) == "bf16"
    batches = create_loader(
        Pictures(dataset),
        input_size=(3, 32, 32),
        batch_size=options.batch,
        is_training=True,
        use_prefetcher=prefetch,
        mean=MEAN,
        std=STD,
        num_workers=0,
        persistent_workers=False,
        device=device,
    )

    def window() -> float:
        model.to(device, memory_format=torch.channels_last)
        optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=options.steps + 1)
        wait(device)
        began = time.perf_counter()
        model.train()
        for images, labels in batches:
            shown = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(shown), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        wait(device)
        return options.batch * options.steps / (time.perf_counter() - began)

    return window


TOOLS: dict[str, Callable[[nn.Module, Dataset, argparse.Namespace, torch.device], Window]] = {
    "bare loop": bare,
    "Lightning, resident": lambda m, d, o, at: with_lightning(m, Resident(d, o.batch, at), o, at),
    "Accelerate, resident": lambda m, d, o, at: with_accelerate(m, Resident(d, o.batch, at), o, at),
    "Lightning, loader": lambda m, d, o, at: with_lightning(m, loader(d, o.batch), o, at),
    "Accelerate, loader": lambda m, d, o, at: with_accelerate(m, loader(d, o.batch), o, at),
    "timm, its loader": with_timm,
}
OURS = "mimetic"
KEEPING = (OURS, "bare loop")
"""Those that keep what a step frees, as our workers do and a loop tuned by hand would."""


@cache
def made(tool: str, name: str, words: tuple[tuple[str, Any], ...]) -> Window:
    """Return a tool's window, made once in the process that has it to itself."""
    options = argparse.Namespace(**dict(words))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    if tool in KEEPING:
        keep_freed_memory()
    device = torch.device(options.device)
    dataset = random_pictures(options.batch * options.steps)
    model = build(models(options)[name], in_channels=3, num_classes=CLASSES, seed=0)
    if tool == OURS:
        window = ours(model, dataset, options)
        return lambda: window()[0]
    return TOOLS[tool](model, dataset, options, device)


def images_per_second(tool: str, name: str, words: tuple[tuple[str, Any], ...]) -> float:
    """Run one window of a tool."""
    return made(tool, name, words)()


def compare(name: str, options: argparse.Namespace) -> None:
    """Print the lines of one model: medians, and how much faster ours is than its neighbour in time."""
    words = tuple(vars(options).items())
    tools = [tool for tool in TOOLS if options.beside in tool]
    found: dict[str, list[tuple[float, float]]] = {tool: [] for tool in tools}
    for _ in range(options.rounds):
        with ExitStack() as stack:
            rooms = {
                tool: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
                for tool in (OURS, *tools)
            }

            def window(tool: str, rooms: Mapping[str, ProcessPoolExecutor] = rooms) -> float:
                return rooms[tool].submit(images_per_second, tool, name, words).result()

            for tool in rooms:  # the first of each warms up
                window(tool)
            for number in range(options.windows):
                for tool in tools:
                    first = number % 2 == 0  # so that neither always comes second
                    mine = window(OURS) if first else 0.0
                    theirs = window(tool)
                    found[tool].append((mine if first else window(OURS), theirs))
    for tool, pairs in found.items():
        low, middle, high = quartiles(mine / theirs for mine, theirs in pairs)
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        spread = f"{low:.3f} – {high:.3f}"
        row(name, tool, *(f"{median:.0f}" for median in medians), f"{middle:.3f}", spread)


def main() -> int:
    """Measure and print the table."""
    parser = loop_parser(__doc__, dim=128, depth=4, patch=2, steps=4, windows=2, device="auto")
    parser.add_argument("--rounds", type=int, default=7, help="how often every tool gets a new process")
    parser.add_argument("--beside", default="", help="only those whose name holds this, e.g. resident")
    options = parser.parse_args()
    options.device = str(pick_device(options.device))
    print(f"torch {torch.__version__}, {options.device}, {options.threads} thread(s), batch {options.batch}")
    head("model", "beside", "mimetic img/s", "its img/s", "median ratio", "quartiles", words=2)
    for name in models(options):
        compare(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
