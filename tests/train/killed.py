"""A trial in a process of its own, which tests kill: `python killed.py FOLDER` trains or continues there."""

import sys
from pathlib import Path

import torch
from torch import nn

from mimetic import streams
from mimetic.data.config import Crop
from mimetic.data.dataset import Dataset, Images
from mimetic.journal import Journal
from mimetic.train.config import OneCycle, Train
from mimetic.train.job import TrainJob
from mimetic.train.loop import train


def images(count: int) -> Images:
    """Return noise with random labels: what is learned does not matter."""
    draws = streams.generator(count)
    pixels_NCHW = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=draws)
    return Images(pixels_NCHW=pixels_NCHW, labels_N=torch.randint(0, 2, (count,), generator=draws))


def main(folder: Path) -> None:
    """Train twelve epochs, or what is left of them."""
    torch.set_num_threads(1)
    half = (0.5, 0.5, 0.5)
    dataset = Dataset("noise", images(320), None, images(64), num_classes=2, mean=half, std=half, digest="")
    with streams.keyed_global_rng(0):
        layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.GELU(), nn.Dropout(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(576, 2))
    spec = Train(epochs=12, batch_size=32, schedule=OneCycle(), device="cpu")
    with Journal(folder / "journal.jsonl") as journal:
        train(
            TrainJob(
                model=model,
                dataset=dataset,
                spec=spec,
                seed=0,
                journal=journal,
                folder=folder,
                plan_hash="plan",
                augment=(Crop(padding=1),),
            )
        )
        journal.write("end", status="FINISHED", reason=None, seconds=0.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
