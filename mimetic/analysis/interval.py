"""How far a mean over seeds is known."""

import math
import statistics
from collections.abc import Sequence

LEVEL = 0.95
"""Coverage of an interval, where no other is asked for."""


def half_width(results: Sequence[float], *, level: float = LEVEL) -> float:
    """Return half the width t(n - 1, (1 + level)/2)·s/√n of a mean's t interval.

    One result gives 0, results that are not finite give NaN.
    """
    from scipy.special import stdtrit

    n = len(results)
    if n < 2:  # noqa: PLR2004
        return 0.0
    if not all(map(math.isfinite, results)):
        return math.nan
    error = statistics.stdev(results) / math.sqrt(n)
    return float(stdtrit(n - 1, (1.0 + level) / 2.0)) * error
