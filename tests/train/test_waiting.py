"""No step waits for the device: nothing is read back from it before an epoch ends.

The meta device stands for a GPU. Its tensors hold nothing, so whatever would read one, choose by one or copy
one to the host raises; and a tensor of the host that an operation takes beside them is found by a watch.
"""

import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mimetic.config.registry import Component
from mimetic.data.config import ColorJitter, Copying, Crop, Cutout, Flip, RandAugment
from mimetic.data.dataset import Dataset
from mimetic.data.load import load_dataset
from mimetic.journal import NullJournal
from mimetic.train import loop
from mimetic.train.config import RmsProp, Train
from mimetic.train.job import Outcome, Stop, TrainJob, never

META = torch.device("meta")
STEPS = 3

EVERYTHING = Train(
    epochs=2, batch_size=16, optimizer=RmsProp(momentum=0.9), clip_norm=1.0, mixup=0.2, cutmix=1.0
)
"""All a step may do; the fused optimizers do not know the meta device."""

AUGMENT = (
    RandAugment(),
    Crop(padding=1),
    Crop(padding=1, fill="reflect"),
    Flip(),
    Cutout(size=3),
    ColorJitter(),
)

_images = runpy.run_path(str(Path(__file__).with_name("halves.py")))["images"]


def _dataset(count: int, tested: int = 20) -> Dataset:
    grey = (0.5, 0.5, 0.5)
    return Dataset("halves", _images(count, 0), None, _images(tested, 1), 2, grey, grey, "")


def _model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 2))


class _Watch(TorchDispatchMode):
    """Notes what would hold the host up, if anything did."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {} if kwargs is None else kwargs
        tensors = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        where = {tensor.device.type for tensor in tensors if tensor.ndim}
        moved = given.get("device") is not None and where == {"cpu"} and given["device"].type == "meta"
        if len(where) > 1 or (moved and not given.get("non_blocking")):
            self.waits.append(f"{func} takes a tensor of the host")
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **given)


class _HostGenerator(torch.Generator):
    """The meta device has no generators; it takes those of the host."""

    def __new__(cls, _device: object = "cpu") -> Self:
        return super().__new__(cls)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Watch]:
    """Train on the meta device, where there is nothing to evaluate or to keep, and watch the steps."""
    monkeypatch.setattr(torch, "Generator", _HostGenerator)
    monkeypatch.setattr(loop.Evaluator, "evaluate_splits", lambda *_: {})
    monkeypatch.setattr(loop, "pick_device", lambda _: META)
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_, **__: None)
    with _Watch() as watching:
        yield watching


def _train(
    folder: Path,
    dataset: Dataset,
    model: nn.Module,
    *,
    augment: Sequence[Component] = (),
    spec: Train,
    stop: Stop,
) -> Outcome:
    job = TrainJob(
        model=model,
        dataset=dataset,
        spec=spec,
        seed=0,
        journal=NullJournal(folder / "journal.jsonl"),
        folder=folder,
        plan_hash="",
        augment=augment,
    )
    return loop.train(job, stop=stop)


def _few_steps(watch: _Watch) -> Any:
    """Return what ends training after some steps; what came before the first of them does not count."""
    left = iter(range(STEPS))

    def stop() -> str | None:
        number = next(left, None)
        if number == 0:
            watch.waits.clear()
        return "enough" if number is None else None

    return stop


def _ended(outcome: Outcome) -> bool:
    return (outcome.status, outcome.reason) == ("KILLED", "enough")


def test_no_step_waits_for_the_device(watch: _Watch, tmp_path: Path) -> None:
    """Augmenting, mixing, clipping, updating and summing up need nothing from it."""
    assert _ended(
        _train(tmp_path, _dataset(70), _model(), augment=AUGMENT, spec=EVERYTHING, stop=_few_steps(watch))
    )
    assert watch.waits == []


def test_nor_does_one_of_sequences(watch: _Watch, tmp_path: Path) -> None:
    """Tokens go through the same loop."""
    dataset = load_dataset(Copying(train_size=64, test_size=16, letters=3, lengths=(2, 4)))
    model = nn.Sequential(nn.Embedding(6, 8), nn.Linear(8, 6))
    spec = EVERYTHING.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
    assert _ended(_train(tmp_path, dataset, model, spec=spec, stop=_few_steps(watch)))
    assert watch.waits == []


def test_reading_is_by_epochs(tmp_path: Path) -> None:
    """As often with few steps and batches of evaluation as with many."""
    reads = []
    for size in (32, 96):
        spec = EVERYTHING.model_copy(update={"device": "cpu", "eval_batch_size": 8})
        with _Watch() as watching:
            outcome = _train(tmp_path / str(size), _dataset(size, size), _model(), spec=spec, stop=never)
        assert outcome.status == "FINISHED"
        reads.append(watching.reads)

    assert reads[0] == reads[1] > 0
