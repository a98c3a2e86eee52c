"""The training loops that benchmarks time, ours and one written by hand, on pictures of CIFAR's shape."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.data.config import Crop, Flip
from mimetic.data.dataset import Dataset, Images
from mimetic.journal import Journal, read_journal
from mimetic.models.config import CifarResNet, ConvMixer, Model
from mimetic.train.config import AdamW, Checkpoint, OneCycle, Train
from mimetic.train.devices import pick_precision
from mimetic.train.job import TrainJob
from mimetic.train.loop import train

CLASSES = 10
LR = 0.01
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PADDING = 4


def models(options: argparse.Namespace) -> dict[str, Model]:
    """Return the networks a script was asked for, by name."""
    every = {
        f"ConvMixer-{options.dim}/{options.depth}": convmixer(options),
        "CIFAR-ResNet-20": CifarResNet(depth=20),
    }
    return {name: spec for name, spec in every.items() if options.model in (spec.type_name(), "both")}


def convmixer(options: argparse.Namespace) -> ConvMixer:
    """Return the ConvMixer a script was asked for."""
    return ConvMixer(
        dim=options.dim, depth=options.depth, kernel_size=options.kernel, patch_size=options.patch
    )


def random_pictures(count: int, held_out: int = 10) -> Dataset:
    """Return random pictures of CIFAR's shape, and a test split, too small to matter unless it should."""
    pixels_NCHW = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels_NCHW=pixels_NCHW, labels_N=torch.randint(0, CLASSES, (count,)))
    few = Images(pixels_NCHW=pixels_NCHW[:held_out], labels_N=images.labels_N[:held_out])
    return Dataset(
        name="random", train=images, val=None, test=few, num_classes=CLASSES, mean=MEAN, std=STD, digest=""
    )


def ours(
    model: nn.Module, dataset: Dataset, options: argparse.Namespace, *, epochs: int = 1
) -> Callable[[], tuple[float, float]]:
    """Return a window of `mimetic.train`: images per second of the steps, seconds of keeping."""
    spec = Train(
        epochs=epochs,
        batch_size=options.batch,
        optimizer=AdamW(lr=LR),
        schedule=OneCycle(),
        device=options.device,
        checkpoint=Checkpoint(keep_weights=False),
    )

    def window() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.jsonl"
            with Journal(path) as journal:
                train(
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
            done = [e for e in read_journal(path) if e["event"] == "epoch" and e["epoch"] > 0]
        speed = statistics.median(e["metrics"]["images_per_second"] for e in done)
        return speed, ended - done[-1]["time"]

    return window


def bare(
    model: nn.Module, dataset: Dataset, options: argparse.Namespace, device: torch.device
) -> Callable[[], float]:
    """Return a window of the loop one would write for this one training, and nothing besides."""
    pixels_NCHW, labels_N = dataset.train.pixels_NCHW.to(device), dataset.train.labels_N.to(device)
    mean_C11 = torch.tensor(MEAN, device=device)[:, None, None]
    std_C11 = torch.tensor(STD, device=device)[:, None, None]
    shift_C11, scale_C11 = -mean_C11 / std_C11, 1 / (255 * std_C11)
    bf16 = pick_precision("auto", device) == "bf16"

    def window() -> float:
        model.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=options.steps)
        wait(device)
        started = time.perf_counter()
        model.train()
        order_N = torch.randperm(len(labels_N)).to(device)
        for number in range(options.steps):
            chosen_B = order_N[number * options.batch : (number + 1) * options.batch]
            images_BCHW = augmented(pixels_NCHW.index_select(0, chosen_B)).float()
            images_BCHW = images_BCHW.mul_(scale_C11).add_(shift_C11)
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits_BK = model(images_BCHW)
            loss = F.cross_entropy(logits_BK.float(), labels_N[chosen_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        wait(device)
        return options.batch * options.steps / (time.perf_counter() - started)

    return window


def augmented(pixels_BCHW: Tensor) -> Tensor:
    """Crop each image at a place of its own and mirror every other one, by one gather."""
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


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
