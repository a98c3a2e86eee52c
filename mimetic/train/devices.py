"""Device, arithmetic and random streams of a trial."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from mimetic.errors import UserError

Precision = Literal["fp32", "tf32", "bf16"]


def pick_device(name: str) -> torch.device:
    """Return the device a recipe names; `auto` takes the GPU if there is one.

    `cuda` without a number is the current GPU of this process: with torchrun each process has another one.

    Raises:
        UserError: If this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"`{name}` is not a device; use `auto`, `cpu`, `cuda:1`…", code="MIM-T001") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0 or (device.index is not None and device.index >= count):
            raise UserError(
                f"`{name}` is not available: {_gpus(count)}; use `auto` or `cpu`", code="MIM-T002"
            )
        return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "`mps` is not available: this machine has no Apple GPU; use `auto` or `cpu`", code="MIM-T003"
        )
    if device.type not in {"cpu", "mps"}:
        raise UserError(f"`{name}` cannot train; use `auto`, `cpu`, `cuda:1`…", code="MIM-T004")
    return device


def pick_precision(name: str, device: torch.device) -> Precision:
    """Return the arithmetic a recipe names; `auto` is bf16 on a CUDA GPU that supports it and fp32 elsewhere.

    GPUs before Ampere emulate bf16, slower than fp32. A CPU has no tf32 and uses fp32.
    """
    if name == "auto":
        return "bf16" if device.type == "cuda" and _supports_bf16(device) else "fp32"
    if name == "tf32":
        return "tf32" if device.type == "cuda" else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def set_arithmetic(precision: Precision, device: torch.device) -> None:
    """Allow or forbid tf32 in matrix products and convolutions, for the whole process.

    This uses the older of torch's two settings, which sets the newer one too: inductor reads the older, and
    torch raises if the two disagree.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bf16 autocast, or none."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed the global generators that dropout and stochastic depth draw from.

    1 µs; `torch.manual_seed`, which also seeds unused devices, takes 76 µs.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def preserve_global_rng() -> Iterator[None]:
    """Restore torch's global random state after the block."""
    cuda_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(list(range(torch.cuda.device_count())) if cuda_in_use else []):
        yield


def device_lost() -> str | None:
    """Return the error of a GPU that this process can no longer use, or None.

    After an illegal access or a failed assertion of a kernel every later call fails, in any trial.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return None


def _supports_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _gpus(count: int) -> str:
    return "torch sees no GPU here" if count == 0 else f"torch sees {count} GPU(s), numbered from 0"
