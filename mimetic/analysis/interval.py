"""How far a mean over seeds is known."""

from collections.abc import Sequence

import numpy as np


def half_width(results: Sequence[float], *, level: float) -> float:
    """Return half the width t(n - 1, (1 + level)/2)·s/√n of a mean's t interval; 0 for one result."""
    from scipy.special import stdtrit

    n = len(results)
    if n < 2:  # noqa: PLR2004
        return 0.0
    return float(stdtrit(n - 1, (1.0 + level) / 2.0) * np.std(results, ddof=1) / np.sqrt(n))
