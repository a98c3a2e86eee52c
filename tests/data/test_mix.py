"""Mixup and cutmix."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mimetic.data.mix import cutmix, mixup
from mimetic.streams import generator

Mix = Callable[[Tensor, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


def batch(count: int = 512) -> tuple[Tensor, Tensor]:
    """Return images whose every pixel is their index, with targets one-hot in the index."""
    images_NCHW = torch.arange(count).float()[:, None, None, None].expand(count, 2, 8, 6).contiguous()
    return images_NCHW, functional.one_hot(torch.arange(count)).float()


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_targets_tell_what_was_mixed(mix: Mix, alpha: float) -> None:
    """An image's mean is that of its targets: blended values and blended areas agree with the shares."""
    images_NCHW, target_NK = batch()

    mixed_NCHW, blended_NK = mix(images_NCHW, target_NK, alpha, generator(0))

    torch.testing.assert_close(
        mixed_NCHW.mean((1, 2, 3)), blended_NK @ torch.arange(512.0), atol=1e-2, rtol=1e-4
    )
    torch.testing.assert_close(blended_NK.sum(1), torch.ones(512))
    assert bool(((blended_NK > 0).sum(1) <= 2).all())


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_keyed_pure_and_per_sample(mix: Mix) -> None:
    """Equal keys give equal batches, the input stays, and shares differ from image to image."""
    images_NCHW, target_NK = batch()
    before = images_NCHW.clone()
    first, again, other = (mix(images_NCHW, target_NK, 1.0, generator(seed)) for seed in (0, 0, 1))

    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images_NCHW, before)
    assert len(first[1].diagonal().unique()) > 20


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_their_law(alpha: float) -> None:
    """Mixup's shares have the mean ½ and the variance 1 / (4 (2α + 1)) of Beta(α, α)."""
    images_NCHW = torch.stack([torch.zeros(1, 1, 1), torch.ones(1, 1, 1)]).repeat(10_000, 1, 1, 1)
    target_NK = torch.eye(2).repeat(10_000, 1)

    _, blended_NK = mixup(images_NCHW, target_NK, alpha, generator(0))
    mixed = blended_NK[:, 0][(blended_NK > 0).all(1)]

    assert mixed.mean().item() == pytest.approx(0.5, abs=0.02)
    assert mixed.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_cutmix_patches_a_rectangle() -> None:
    """Foreign pixels form one rectangle."""
    images_NCHW, target_NK = batch()

    mixed_NCHW, _ = cutmix(images_NCHW, target_NK, 1.0, generator(0))
    foreign_NHW = mixed_NCHW[:, 0] != images_NCHW[:, 0]
    rows, columns = foreign_NHW.any(2).sum(1), foreign_NHW.any(1).sum(1)

    assert bool((foreign_NHW.sum((1, 2)) == rows * columns).all())
    assert rows.max() == 8
    assert columns.max() == 6
