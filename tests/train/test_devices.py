"""Where and in which arithmetic."""

from collections.abc import Iterator

import pytest
import torch

from mimetic.errors import UserError
from mimetic.train import devices
from mimetic.train.devices import (
    Precision,
    autocast,
    device_lost,
    pick_device,
    pick_precision,
    preserve_global_rng,
    seed_layers,
    set_arithmetic,
)

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
def test_precision(name: str, device: torch.device, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is bf16 on a GPU and fp32 on a CPU, which has no tf32."""
    monkeypatch.setattr(devices, "_supports_bf16", lambda _: True)
    assert expected == pick_precision(name, device)


def test_a_gpu_that_emulates_bfloat16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` means the fastest; who asks for bf16 by name gets it."""
    monkeypatch.setattr(devices, "_supports_bf16", lambda _: False)
    assert pick_precision("auto", GPU) == "fp32"
    assert pick_precision("bf16", GPU) == "bf16"


@pytest.fixture
def settings() -> Iterator[None]:
    """Set torch's settings back that are those of the whole process."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.usefixtures("settings")
def test_arithmetic_is_set_in_a_way_all_of_torch_can_read(precision: Precision) -> None:
    """Set by one of torch's two ways alone, the other raises where inductor asks it."""
    set_arithmetic(precision, GPU)

    matmul, cudnn, tf32 = torch.backends.cuda.matmul, torch.backends.cudnn, precision == "tf32"
    assert (tf32, tf32) == (matmul.allow_tf32, cudnn.allow_tf32)
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert (matmul.fp32_precision == "tf32") == (cudnn.conv.fp32_precision == "tf32") == tf32


def test_cuda_without_a_number_is_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `auto`: torchrun's second process must not take the first one's GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    expected = {"auto": 1, "cuda": 1, "cuda:0": 0}
    assert {name: pick_device(name).index for name in expected} == expected


def test_device_by_name() -> None:
    """What is named is taken; `auto` is the GPU if there is one."""
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_missing_gpu_is_named(name: str) -> None:
    """The recipe's own word stands in the error, with what to write instead."""
    with pytest.raises(UserError, match=f"`{name}`") as caught:
        pick_device(name)
    assert caught.value.code == "MIM-T002"


def test_layers_are_seeded_as_by_manual_seed() -> None:
    """Dropout draws what it would after `torch.manual_seed`."""
    with preserve_global_rng():
        torch.manual_seed(5)
        expected = torch.rand(3)
        seed_layers(5, CPU)
        assert torch.equal(expected, torch.rand(3))


def test_global_streams_are_kept() -> None:
    """The process' own stream goes on as if nothing had been drawn."""
    before = torch.get_rng_state()
    with preserve_global_rng():
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


def test_a_gpu_that_answers_no_more_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was never used is not asked."""

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nFor debugging …")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert device_lost() is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert device_lost() == "CUDA error: an illegal memory access was encountered"
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert device_lost() is None
