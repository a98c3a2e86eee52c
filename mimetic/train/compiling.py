"""Whether a model is compiled: only where the run is long enough to earn back what compiling costs."""

import torch

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
