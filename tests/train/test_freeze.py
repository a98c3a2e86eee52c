"""Frozen means: the same bytes at the end."""

import pytest
import torch
from torch import nn

from mimetic.errors import RunError
from mimetic.train.freeze import check_frozen, digest, freeze_norm_statistics


def test_digest_ignores_memory_format_and_sees_values() -> None:
    """Layout does not matter; one changed bit, the shape and the dtype do."""
    weight = torch.arange(36.0).view(2, 2, 3, 3)
    assert digest(weight) == digest(weight.contiguous(memory_format=torch.channels_last))
    others = [weight.nextafter(weight + 1), weight.view(2, 2, 9), weight.to(torch.float64), -weight]
    assert len({digest(weight), *map(digest, others)}) == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.complex64])
def test_digest_takes_every_dtype(dtype: torch.dtype) -> None:
    """Also those numpy does not know, scalars and empty tensors."""
    found = {digest(torch.zeros(shape, dtype=dtype)) for shape in [(), (0,), (3,)]}
    assert len(found) == 3


def test_moved_parameters_are_named() -> None:
    """All that changed, and what is gone, are named; what stayed is not."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = ["0.weight", "0.bias", "1.weight", "2.running_mean"]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    digests = {name: digest(tensors[name]) for name in names}
    check_frozen(model, digests)
    with torch.no_grad():
        model[1].weight.add_(1.0)
        model[2].running_mean.add_(1.0)
    with pytest.raises(RunError, match=r"changed during training: 1\.weight, 2\.running_mean, gone;"):
        check_frozen(model, {**digests, "gone": ""})


def test_held_statistics_stay_and_are_used() -> None:
    """After `train()`, a held norm layer normalizes by its running statistics and keeps them."""
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model.train()
    freeze_norm_statistics(model, ["0"])
    before = {name: digest(buffer) for name, buffer in model.named_buffers()}
    inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 5.0
    torch.testing.assert_close(model[0](inputs), inputs, rtol=1e-4, atol=1e-4)
    model(inputs)
    after = {name: digest(buffer) for name, buffer in model.named_buffers()}
    assert [n for n in after if after[n] != before[n]] == [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
