"""How a trial ends, and what ends it early."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mimetic.errors import RunError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: FINISHED; FAILED, with the reason; KILLED, by what `stop` said.
        metrics: Each metric at the last epoch that has it.
        reason: Why it did not finish.
    """

    status: Literal["FINISHED", "FAILED", "KILLED"]
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


def kept_at_a_stop(keep: Callable[[], None]) -> str:
    """Keep the state of a trial that was stopped; return what to say if that fails."""
    try:
        keep()
    except RunError as error:
        return f"; {error}"
    return ""


def refuse_nonfinite(metrics: Mapping[str, float], *, epoch: int) -> None:
    """End a trial whose figures are not finite.

    Raises:
        RunError: With the figure and what to do.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise RunError(
                f"{name} is {value} after epoch {epoch}: training diverged; lower train.optimizer.lr, "
                "set train.clip_norm, or look at the initial scale with `mimetic plan`"
            )
