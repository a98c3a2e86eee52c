"""Loss and accuracy of splits, and a training that diverged."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mimetic import streams
from mimetic.data.dataset import Images
from mimetic.errors import RunError
from mimetic.train.job import Stopped
from mimetic.train.metrics import Evaluator, require_finite


class Means(nn.Module):
    """Logits are the images' channel means, times three where the model trains."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits (N, C)."""
        return images_NCHW.mean((2, 3)) * (3.0 if self.training else 1.0)


def _images() -> Images:
    draws = streams.generator(0)
    pixels = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8, generator=draws)
    return Images(pixels_NCHW=pixels, labels_N=torch.randint(0, 3, (23,), generator=draws))


@pytest.mark.parametrize("batch_size", [1, 10, 23, 500])
def test_any_batch_size_gives_the_split_s_means(batch_size: int) -> None:
    """The last batch counts by its size, and the model is in evaluation mode."""
    images = _images()
    logits_NK = images.pixels_NCHW.float().mean((2, 3)) / 255
    expected = F.cross_entropy(logits_NK, images.labels_N).item()
    right = (logits_NK.argmax(1) == images.labels_N).float().mean().item()
    found = Evaluator(decode=lambda x: x / 255, batch_size=batch_size, precision="fp32").evaluate(
        Means(), images
    )
    assert pytest.approx((expected, right), rel=1e-6) == found


def test_evaluation_can_be_stopped() -> None:
    """A reason given between two batches leaves the evaluation."""
    reasons = iter([None, "enough"])
    settings = {"decode": lambda x: x / 255, "batch_size": 10, "precision": "fp32"}
    with pytest.raises(Stopped, match="enough"):
        Evaluator(stop=lambda: next(reasons), **settings).evaluate(Means(), _images())


def test_each_split_has_its_names() -> None:
    """A probe's follow those of the split it changes."""
    images = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    evaluator = Evaluator(decode=lambda images: images / 255, batch_size=2, precision="fp32")
    found = evaluator.evaluate_splits(model, {("val", ""): images, ("test", "noisy"): images})

    assert list(found) == ["val/loss", "val/acc", "test/loss_noisy", "test/acc_noisy"]
    assert found["val/loss"] == pytest.approx(math.log(2))


def test_a_metric_that_is_not_finite_ends_the_trial() -> None:
    """The metric is named."""
    require_finite({"train/loss": 0.5}, epoch=1)
    with pytest.raises(RunError, match="test/loss is nan after epoch 2") as caught:
        require_finite({"train/loss": 0.5, "test/loss": math.nan}, epoch=2)
    assert caught.value.code == "MIM-T010"
