"""Whether a model is compiled: only where the run is long enough to earn back what compiling costs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mimetic.errors import RunError
from mimetic.journal import Journal, NullJournal

LONG = 5_000
"""Steps from which `auto` compiles on a GPU: compiling takes about a minute, and earns some ten
milliseconds a step. An estimate; the journal holds what the first step took."""


def pick_compile(choice: bool | str, device: torch.device, *, steps: int) -> tuple[bool, str]:
    """Return whether to compile, and why, for the journal.

    On a CPU compiling never paid: the time goes into the backward passes of convolutions, and inductor
    calls the same kernels for them as eager mode does (0.8 of eager's images per second, Runner research B4).
    """
    if isinstance(choice, bool):
        return choice, "on" if choice else "off"
    if device.type != "cuda":
        return False, f"off: it does not pay on a {device.type}"
    if steps < LONG:
        return False, f"off: {steps} steps do not earn it back, {LONG} would"
    return True, f"on: {steps} steps earn it back"


class CompileError(RunError):
    """A network that should be compiled cannot be."""


class Compiled:
    """A model's forward, compiled at its first call; inductor keeps what it made on the disk.

    Args:
        model: The model.
        must: Whether it is an error that it cannot be compiled; it is used as it is otherwise.
        journal: Told what compiling cost, or why it failed.
    """

    def __init__(self, model: nn.Module, *, must: bool, journal: Journal | NullJournal) -> None:
        self._model, self._must, self._journal = model, must, journal
        self._forward: Callable[[Tensor], Tensor] = torch.compile(model)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return what the model answers.

        Raises:
            CompileError: If it cannot be compiled and must be, with the repair.
        """
        try:
            return self._forward(inputs)
        except Exception as error:
            if self._forward is self._model or not _of_the_compiler(error):
                raise
            said = f"torch.compile fails here ({' '.join(str(error).split())[:160]})"
            if self._must:
                raise CompileError(f"{said}; set `train.compile: false`") from error
            self._journal.write("note", text=f"not compiled: {said}", aloud=True)
            self._forward = self._model
        return self._model(inputs)  # type: ignore[no-any-return]

    def tell(self, seconds: float) -> None:
        """Take in what the first step took, and tell it if the model was compiled in it."""
        if self._forward is not self._model:
            self._journal.write("compiled", first_step_seconds=seconds)


def _of_the_compiler(error: Exception) -> bool:
    """Tell whether the compiler raised it: no C++ compiler or Triton, an operation it does not know."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton"))
