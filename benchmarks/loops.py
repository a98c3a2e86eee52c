"""Training loops to measure, `mimetic.train` and one written by hand, on random images of CIFAR's shape.

Everything here that trains a network with mimetic's own loop does so through `train_window`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from benchmarks.measurement import DeviceOptions, option
from benchmarks.timing import synchronize
from mimetic.data.config import Crop, Flip
from mimetic.data.dataset import Dataset, Images
from mimetic.errors import RunError
from mimetic.journal import Journal, read_journal
from mimetic.models.build import build
from mimetic.models.config import CifarResNet, ConvMixer, Model
from mimetic.train.config import AdamW, Checkpoint, OneCycle, Train
from mimetic.train.devices import pick_precision
from mimetic.train.job import TrainJob
from mimetic.train.loop import train

CLASSES = 10
LR = 0.01
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PADDING = 4


# --------------------------------------------------------------------------------------------- setting
@dataclass(frozen=True, kw_only=True, slots=True)
class ConvMixerOptions(DeviceOptions):
    """Flags of a measurement that trains a ConvMixer."""

    dim: int = option(128, "channels of the ConvMixer")
    depth: int = option(4, "blocks of the ConvMixer")
    kernel: int = option(7, "kernel size of the ConvMixer")
    patch: int = option(2, "patch size of the ConvMixer")
    batch: int = option(128, "images per step")

    def convmixer(self) -> ConvMixer:
        """Return the ConvMixer."""
        return ConvMixer(dim=self.dim, depth=self.depth, kernel_size=self.kernel, patch_size=self.patch)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOptions(ConvMixerOptions):
    """Flags of a measurement that times windows of some steps."""

    model: str = option("both", "what is trained", ["convmixer", "cifar_resnet", "both"])
    steps: int = option(4, "steps per window")
    windows: int = option(13, "windows of each loop")

    def models(self) -> dict[str, Model]:
        """Return the networks by name."""
        every = {
            f"ConvMixer-{self.dim}/{self.depth}": self.convmixer(),
            "CIFAR-ResNet-20": CifarResNet(depth=20),
        }
        return {name: spec for name, spec in every.items() if self.model in (spec.type_name(), "both")}

    def images(self) -> Dataset:
        """Return the images of a window."""
        return random_images(self.batch * self.steps)


def random_images(count: int, held_out: int = 10) -> Dataset:
    """Return random images of CIFAR's shape and a test split."""
    pixels_NCHW = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels_NCHW=pixels_NCHW, labels_N=torch.randint(0, CLASSES, (count,)))
    test = Images(pixels_NCHW=pixels_NCHW[:held_out], labels_N=images.labels_N[:held_out])
    return Dataset(
        name="random", train=images, val=None, test=test, num_classes=CLASSES, mean=MEAN, std=STD, digest=""
    )


def network(spec: Model) -> nn.Module:
    """Build a network for these images."""
    return build(spec, in_channels=3, num_classes=CLASSES, seed=0)


# --------------------------------------------------------------------------------------------- mimetic
@dataclass(frozen=True, slots=True)
class Window:
    """One training.

    Attributes:
        images_per_second: Median over the epochs, of the steps alone.
        closing: Seconds from the last epoch's metrics to the end: what is saved.
    """

    images_per_second: float
    closing: float


def train_window(
    model: nn.Module,
    dataset: Dataset,
    options: ConvMixerOptions,
    *,
    epochs: int = 1,
    compiled: bool | str = "auto",
) -> Window:
    """Train with `mimetic.train`: crop, flip, AdamW, one-cycle, no weights saved.

    Raises:
        RunError: If the training fails.
    """
    spec = Train(
        epochs=epochs,
        batch_size=options.batch,
        optimizer=AdamW(lr=LR),
        schedule=OneCycle(),
        device=options.device,
        compile=compiled,
        checkpoint=Checkpoint(keep_weights=False),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with Journal(path) as journal:
            outcome = train(
                TrainJob(
                    model=model,
                    dataset=dataset,
                    spec=spec,
                    seed=0,
                    journal=journal,
                    folder=Path(folder),
                    plan_hash="",
                    augment=(Crop(padding=PADDING), Flip()),
                )
            )
        ended = time.time()
        trained = [e for e in read_journal(path) if e["event"] == "epoch" and e["epoch"] > 0]
    if outcome.status != "FINISHED":
        raise RunError(f"training ended as {outcome.status}: {outcome.reason}")
    speed = statistics.median(e["metrics"]["images_per_second"] for e in trained)
    return Window(speed, ended - trained[-1]["time"])


# --------------------------------------------------------------------------------------------- by hand
class ResidentBatches:
    """Batches on the device, decoded and augmented by one gather, for any loop."""

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


def augmented(pixels_BCHW: Tensor) -> Tensor:
    """Crop each image at its own random position and mirror half of them, by one gather."""
    count, channels, height, width = pixels_BCHW.shape
    device = pixels_BCHW.device
    padded = F.pad(pixels_BCHW, (PADDING,) * 4)
    top_B11, left_B11 = torch.randint(0, 2 * PADDING + 1, (2, count, 1, 1), device=device)
    rows_BH1 = top_B11 + torch.arange(height, device=device)[:, None]
    columns_B1W = left_B11 + torch.arange(width, device=device)
    mirrored_B11 = torch.rand(count, 1, 1, device=device) < 0.5
    columns_B1W = torch.where(mirrored_B11, columns_B1W.flip(2), columns_B1W)
    places = (rows_BH1 * (width + 2 * PADDING) + columns_B1W).view(count, 1, -1)
    chosen = padded.view(count, channels, -1).gather(2, places.expand(-1, channels, -1))
    return chosen.view(count, channels, height, width)


def bare(model: nn.Module, dataset: Dataset, options: LoopOptions) -> Callable[[], float]:
    """Return a window of the loop one would write for this one training: images per second."""
    return loop_by_hand(model, ResidentBatches(dataset, options.batch, options.where), options)


def loop_by_hand(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    options: LoopOptions,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
) -> Callable[[], float]:
    """Return a window of a plain loop over batches, on the device or not, with AdamW unless given another."""
    device = options.where
    bf16 = pick_precision("auto", device) == "bf16"
    make_optimizer = fused_adamw if make_optimizer is None else make_optimizer

    def window() -> float:
        model.to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=options.steps + 1)
        synchronize(device)
        started = time.perf_counter()
        model.train()
        for images, labels in batches:
            inputs = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(inputs)
            loss = F.cross_entropy(logits.float(), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        synchronize(device)
        return options.batch * options.steps / (time.perf_counter() - started)

    return window


def fused_adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of every loop."""
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
