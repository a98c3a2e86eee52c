"""One of several processes that train a model together, or alone: `torchrun … team.py FOLDER`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from halves import images  # beside this file, which is run as a script
from torch import distributed as dist
from torch import nn

from mimetic import streams
from mimetic.data.config import Crop
from mimetic.data.dataset import Dataset
from mimetic.journal import Journal, NullJournal
from mimetic.train.config import OneCycle, Train
from mimetic.train.distributed import SINGLE_PROCESS, DistContext
from mimetic.train.freeze import digest
from mimetic.train.job import TrainJob
from mimetic.train.loop import train


class _Remembering(Journal):
    """Remembers each metric's last value, also where nothing is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.last: dict[str, float] = {}

    def write(self, event: str, /, **fields: Any) -> None:
        super().write(event, **fields)
        if event == "epoch":
            self.last |= fields["metrics"]


class _RememberingNull(_Remembering, NullJournal):
    """Likewise, and writes nothing."""


def main(folder: Path, epochs: int, stop_after: int | None) -> None:
    """Train, or go on, and write down the beginning, what the steps saw and the end."""
    torch.set_num_threads(1)
    context = SINGLE_PROCESS
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        context = DistContext(dist.get_rank(), dist.get_world_size())
    half = (0.5, 0.5, 0.5)
    dataset = Dataset(
        "halves", images(70, 0), None, images(50, 1), num_classes=2, mean=half, std=half, digest=""
    )
    with streams.keyed_global_rng(0):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.GELU(), nn.Flatten(), nn.Linear(288, 2)
        )
    seen: list[list[float]] = []
    begun = {name: digest(tensor) for name, tensor in model.state_dict().items()}
    model.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].mean((1, 2, 3)).tolist()) if module.training else None
    )
    spec = Train(epochs=epochs, batch_size=16, schedule=OneCycle(), cutmix=1.0, device="cpu")
    path = folder / "journal.jsonl"
    left = iter(range(10**9 if stop_after is None else stop_after))
    with _Remembering(path) if context.rank == 0 else _RememberingNull(path) as journal:
        job = TrainJob(
            model=model,
            dataset=dataset,
            spec=spec,
            seed=3,
            journal=journal,
            folder=folder,
            plan_hash="plan",
            augment=(Crop(padding=1),),
        )
        # one of the processes is asked to stop; all do, at the same step
        last = context.rank == context.world_size - 1
        outcome = train(
            job, stop=lambda: "asked" if next(left, None) is None and last else None, context=context
        )
    told = {"begun": begun, "seen": seen, "status": outcome.status, "metrics": journal.last}
    (folder / f"told-{context.rank}.json").write_text(json.dumps(told))
    if context.world_size > 1:
        dist.barrier()
        dist.destroy_process_group()
        os._exit(0)  # gloo's threads may outlive this, and abort an interpreter that ends before them


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
