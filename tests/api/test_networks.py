"""`mimetic.resample` and `mimetic.similarity` on networks of one's own."""

import pytest
import torch
from torch import nn

import mimetic
from mimetic.config.errors import RecipeError
from mimetic.errors import UserError

IMAGES = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(width: int, seed: int) -> nn.Sequential:
    """Return a small network."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, width, 3, stride=2)
    return nn.Sequential(
        conv, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    )


def test_a_network_is_resampled_into_a_wider_one() -> None:
    """From a tensor or a loader of batches, the same bits; the trained network is left alone."""
    trained, one, other = net(6, 0), net(30, 1), net(30, 2)
    before = trained[1].running_mean.clone()
    plan = mimetic.resample(one, trained, IMAGES, seed=3)
    mimetic.resample(other, trained, [(batch, 0) for batch in IMAGES.split(25)], seed=3)

    assert torch.equal(one[0].weight, other[0].weight)
    assert torch.equal(one[1].running_var, other[1].running_var)
    assert torch.equal(before, trained[1].running_mean)
    assert {entry.initializer for entry in plan.entries} == {"rainbow"}


class Classes(nn.Module):
    """A network whose head is also an embedding of the classes, one of which is padding."""

    def __init__(self, width: int, seed: int) -> None:
        """Tie them."""
        super().__init__()
        self.net, self.words = net(width, seed), nn.Embedding(4, width, padding_idx=1)
        self.words.weight = self.net[5].weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.net(images)


def test_rows_of_padding_stay_zero() -> None:
    """Also where an initializer runs the whole network."""
    model = Classes(8, 1)
    plan = mimetic.resample(model, Classes(6, 0), IMAGES)
    assert model.net[5].weight.any(dim=1).tolist() == [True, False, True, True]
    assert "row 1 stays zero: `padding_idx`" in plan.entry("words.weight").notes


def test_alignment_shows_in_the_likeness() -> None:
    """The resampled network's features are those of the trained one more than a fresh network's are."""
    trained, new, fresh = net(40, 0), net(40, 1), net(40, 1)
    mimetic.resample(new, trained, IMAGES, rows="orthogonal")
    ours = mimetic.similarity(trained, new, IMAGES)
    theirs = mimetic.similarity(trained, fresh, IMAGES)

    assert ours[0].filters == pytest.approx(1.0, abs=0.02)
    assert theirs[0].filters < 0.99
    assert [row.layer for row in mimetic.similarity(trained, new)] == ["0", "5"]


def test_mistakes_are_said_before_anything_is_written() -> None:
    """No images, an unknown option, a layer that does not fit."""
    trained, model = net(6, 0), net(6, 1)
    before = model[0].weight.clone()
    with pytest.raises(UserError, match="there are none"):
        mimetic.resample(model, trained, None)
    with pytest.raises(UserError, match="`rows`"):
        mimetic.resample(model, trained, IMAGES, rows="square")
    model[5] = nn.Linear(6, 7)
    with pytest.raises(RecipeError, match="the last layer is copied"):
        mimetic.resample(model, trained, IMAGES)

    assert torch.equal(before, model[0].weight)
