"""The figures of an epoch: when a model is evaluated and measured, and what both are called."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from mimetic.data.dataset import Images
from mimetic.train.config import Train
from mimetic.train.figures import epoch_figures, evaluate_splits
from mimetic.train.stopping import never

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))


def figures(epoch: int, loss: float = 0.5, *, tested: float = 0.9) -> Mapping[str, float]:
    """Return the figures of an epoch of three, of which every second is evaluated."""
    return epoch_figures(
        MODEL,
        epoch,
        spec=Train(epochs=3, eval_every=2),
        loss=loss,
        accuracy=0.8,
        lr=0.1,
        images=64,
        seconds=2.0,
        evaluate=lambda _: {"test/acc": tested},
        observe=lambda _, epoch: {"seen": float(epoch)},
    )


@pytest.mark.parametrize(("epoch", "expected"), [(1, False), (2, True), (3, True)])
def test_a_model_is_evaluated_when_it_is_due_and_at_the_end(epoch: int, expected: bool) -> None:
    """It is measured in each epoch, and what is trained on counts by the seconds of training."""
    found = figures(epoch)

    assert ("test/acc" in found) == expected
    assert (found["train/loss"], found["train/acc"], found["lr"]) == (0.5, 0.8, 0.1)
    assert (found["images_per_second"], found["seen"]) == (32.0, epoch)
    assert 2.0 <= found["epoch_seconds"] < 3.0


def test_a_model_that_diverged_is_looked_at_no_further() -> None:
    """Neither evaluated after a loss nor measured after an evaluation that is not finite."""
    assert not {"test/acc", "seen"} & set(figures(2, math.nan))
    assert "seen" not in figures(2, tested=math.inf)


def test_each_split_has_its_names() -> None:
    """A probe's follow those of the split it changes."""
    images = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    found = evaluate_splits(
        MODEL,
        splits={("val", ""): images, ("test", "noisy"): images},
        decode=lambda images: images / 255,
        batch_size=2,
        precision="fp32",
        stop=never,
    )

    assert list(found) == ["val/loss", "val/acc", "test/loss_noisy", "test/acc_noisy"]
    assert found["val/loss"] == pytest.approx(math.log(2))
