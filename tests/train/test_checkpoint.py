"""A checkpoint is whole, is ours, or is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mimetic.errors import RunError, UserError
from mimetic.train import checkpoint
from mimetic.train.checkpoint import (
    Progress,
    UnreadableCheckpointError,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from mimetic.train.config import AdamW, Optimizer, RmsProp, Sgd
from mimetic.train.optimizers import make_optimizer

OPTIMIZERS = [AdamW(), Sgd(), Sgd(momentum=0.0), RmsProp(momentum=0.5)]


class Tied(nn.Module):
    """Two names for one weight, norm statistics, and a filter bank with channels last."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.filters = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.one, self.two = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.two.weight = self.one.weight
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.two(self.one(self.norm(self.filters(images)).mean((2, 3))))


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, *, first: int, last: int) -> None:
    for number in range(first, last):
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def _equal(one: nn.Module, two: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("spec", OPTIMIZERS, ids=lambda spec: f"{spec.type}")
def test_restored_training_goes_on_bit_for_bit(tmp_path: Path, spec: Optimizer) -> None:
    """Three steps, a checkpoint, another process' worth of objects, three more: as six in a row."""
    straight = Tied()
    optimizer = make_optimizer(spec, straight)
    _steps(straight, optimizer, first=0, last=3)
    save_checkpoint(tmp_path / "state", straight, optimizer, Progress(1, 3), plan_hash="p")
    _steps(straight, optimizer, first=3, last=6)

    resumed = Tied(seed=1)
    again = make_optimizer(spec, resumed)
    found = load_checkpoint(tmp_path / "state", plan_hash="p")
    assert found is not None
    assert (found.progress.epoch, found.progress.step) == (1, 3)
    found.restore(resumed, again)
    assert resumed.one.weight is resumed.two.weight
    _steps(resumed, again, first=3, last=6)
    assert _equal(straight, resumed)


def _saved(path: Path) -> tuple[Tied, torch.optim.Optimizer]:
    model = Tied()
    optimizer = make_optimizer(AdamW(), model)
    _steps(model, optimizer, first=0, last=1)
    save_checkpoint(path, model, optimizer, Progress(1, 1), plan_hash="one-plan")
    return model, optimizer


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """A trial without a checkpoint begins at the beginning."""
    assert load_checkpoint(tmp_path / "state", plan_hash="p") is None


def test_another_plan_is_refused(tmp_path: Path) -> None:
    """The plan's hash binds a checkpoint; the error names both and a repair."""
    _saved(tmp_path / "state")
    with pytest.raises(
        UserError, match=r"another plan \(one-plan, not two-plan\).*start a new study"
    ) as caught:
        load_checkpoint(tmp_path / "state", plan_hash="two-plan")
    assert not isinstance(caught.value, UnreadableCheckpointError)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_truncated_checkpoint_is_unreadable(tmp_path: Path, share: float) -> None:
    """A file cut anywhere is reported as such."""
    path = tmp_path / "state"
    _saved(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableCheckpointError, match="cannot be read"):
        load_checkpoint(path, plan_hash="one-plan")


def test_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """One wrong bit among the weights does not pass."""
    path = tmp_path / "state"
    _saved(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableCheckpointError, match="digest"):
        load_checkpoint(path, plan_hash="one-plan")


def test_foreign_file_is_unreadable(tmp_path: Path) -> None:
    """A safetensors file of somebody else, a text and a folder are no checkpoints."""
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign")
    (tmp_path / "text").write_text("no tensors")
    (tmp_path / "folder").mkdir()
    for name in ("foreign", "text", "folder"):
        with pytest.raises(UnreadableCheckpointError):
            load_checkpoint(tmp_path / name, plan_hash="one-plan")


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """Names and shapes must be the model's."""
    _saved(tmp_path / "state")
    found = load_checkpoint(tmp_path / "state", plan_hash="one-plan")
    assert found is not None
    other = nn.Linear(2, 2)
    with pytest.raises(RunError, match=r"does not fit the model: bias, filters\.bias"):
        found.restore(other, make_optimizer(AdamW(), other))


def test_failed_write_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while writing costs nothing that was there."""
    path = tmp_path / "state"
    model, optimizer = _saved(path)
    before = path.read_bytes()

    def full(tensors: object, name: Path, metadata: object) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"cannot be written.*No space left"):
        save_checkpoint(path, model, optimizer, Progress(2, 2), plan_hash="one-plan")
    assert before == path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_weights_are_readable_by_name(tmp_path: Path) -> None:
    """Final weights are plain safetensors, tied ones once."""
    model = Tied()
    save_weights(tmp_path / "weights", model, epoch=4, step=8, plan_hash="p")
    found = load_file(tmp_path / "weights")
    assert sorted(set(model.state_dict()) - {"two.weight"}) == sorted(found)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in found.items())


def test_final_weights_come_back_as_a_state(tmp_path: Path) -> None:
    """A trial that was killed after its last epoch finds everything in its final weights."""
    model, other = Tied(), Tied(seed=1)
    assert load_weights(tmp_path / "weights", plan_hash="p") is None
    save_weights(tmp_path / "weights", model, epoch=4, step=8, plan_hash="p")
    found = load_weights(tmp_path / "weights", plan_hash="p")
    assert found is not None
    assert (found.progress.epoch, found.progress.step) == (4, 8)
    found.restore(other, make_optimizer(AdamW(), other))
    assert _equal(model, other)
    with pytest.raises(UserError, match="another plan"):
        load_weights(tmp_path / "weights", plan_hash="q")


def test_weights_of_fewer_epochs_are_no_checkpoint(tmp_path: Path) -> None:
    """More epochs need the optimizer's state, which is not among the final weights."""
    save_weights(tmp_path / checkpoint.WEIGHTS, nn.Linear(2, 2), epoch=4, step=8, plan_hash="p")

    assert checkpoint.find_checkpoint(tmp_path, plan_hash="p", epochs=6) == (None, None)
    found, _ = checkpoint.find_checkpoint(tmp_path, plan_hash="p", epochs=4)
    assert found is not None
