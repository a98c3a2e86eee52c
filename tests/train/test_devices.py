"""Where and in which arithmetic."""

import pytest
import torch

from mimetic.errors import UserError
from mimetic.train.devices import autocast, keeping_global_streams, pick_device, pick_precision, seed_layers

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", CPU, "fp32"),
        ("auto", GPU, "bf16"),
        ("tf32", CPU, "fp32"),
        ("tf32", GPU, "tf32"),
        ("bf16", CPU, "bf16"),
        ("fp32", GPU, "fp32"),
    ],
)
def test_precision(name: str, device: torch.device, expected: str) -> None:
    """`auto` is bf16 on a GPU and fp32 on a CPU, which has no tf32."""
    assert expected == pick_precision(name, device)


def test_device_by_name() -> None:
    """What is named is taken; `auto` is the GPU if there is one."""
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_missing_gpu_is_named(name: str) -> None:
    """The recipe's own word stands in the error, with what to write instead."""
    with pytest.raises(
        UserError, match=f"`{name}` asked for, but torch sees no GPU here; use `auto` or `cpu`"
    ):
        pick_device(name)


def test_layers_are_seeded_as_by_manual_seed() -> None:
    """Dropout draws what it would after `torch.manual_seed`."""
    with keeping_global_streams():
        torch.manual_seed(5)
        expected = torch.rand(3)
        seed_layers(5, CPU)
        assert torch.equal(expected, torch.rand(3))


def test_global_streams_are_kept() -> None:
    """The process' own stream goes on as if nothing had been drawn."""
    before = torch.get_rng_state()
    with keeping_global_streams():
        seed_layers(5, CPU)
        torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_only_for_bfloat16() -> None:
    """A product is computed in bf16 where asked, in fp32 otherwise."""
    square = torch.ones(2, 2)
    with autocast("bf16", CPU):
        assert (square @ square).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert (square @ square).dtype == torch.float32
