"""Whether a model is compiled: only if the run is long enough to amortize the compile time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mimetic.errors import RunError
from mimetic.journal import Journal

MIN_STEPS = 5_000
"""Steps from which `auto` compiles on a GPU. Compiling takes about a minute and saves some ten milliseconds
a step: an estimate; the journal records the time of the first step."""


def pick_compile(choice: bool | str, device: torch.device, *, steps: int) -> tuple[bool, str]:
    """Return whether to compile, and the reason for the journal.

    On a CPU compiling never paid off: the time goes into backward passes of convolutions, for which
    inductor calls the same kernels as eager mode (0.8 of eager's images per second).
    """
    if isinstance(choice, bool):
        return choice, "on" if choice else "off"
    if device.type != "cuda":
        return False, f"off: no gain on {device.type}"
    if steps < MIN_STEPS:
        return False, f"off: {steps} steps do not amortize the compile time, {MIN_STEPS} would"
    return True, f"on: {steps} steps amortize the compile time"


class CompileError(RunError):
    """A model that must be compiled cannot be."""


class CompiledModel:
    """A model's forward, compiled at its first call; inductor caches the code on disk.

    If it is `required`, a compile error is raised. Otherwise the model then runs uncompiled.
    """

    def __init__(self, model: nn.Module, *, required: bool, journal: Journal) -> None:
        self._model, self._required, self._journal = model, required, journal
        self._forward: Callable[[Tensor], Tensor] = torch.compile(model)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the model's output.

        Raises:
            CompileError: If compiling is required and fails, with the repair.
        """
        try:
            return self._forward(inputs)
        except Exception as error:
            if self._forward is self._model or not _from_compiler(error):
                raise
            reason = " ".join(str(error).split())[:160]
            if self._required:
                raise CompileError(
                    f"torch.compile failed ({reason}); set `train.compile: false`", code="MIM-T050"
                ) from error
            self._journal.write(
                "note", text=f"not compiled: torch.compile failed ({reason})", level="warning"
            )
            self._forward = self._model
        return self._model(inputs)  # type: ignore[no-any-return]

    def report_first_step(self, seconds: float) -> None:
        """Journal the time of the first step, if the model was compiled in it."""
        if self._forward is not self._model:
            self._journal.write("compiled", first_step_seconds=seconds)


def _from_compiler(error: Exception) -> bool:
    """Return whether the compiler raised it: no C++ compiler or Triton, or an unsupported operation."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton"))
