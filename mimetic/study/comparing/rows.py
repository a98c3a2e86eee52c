"""One arm in a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

from mimetic.study.comparing.results import Stopped
from mimetic.study.comparing.statistics import Difference


@dataclass(frozen=True, slots=True)
class Row:
    """One arm in a comparison, in the metric's display unit.

    Attributes:
        arm: Name of the arm.
        values: Seed → value of the metric, of finished trials; (data set, seed) → value if there are several.
        mean: Mean over seeds; with several data sets, the interquartile mean. None if no trial finished.
        std: Standard deviation over seeds (n - 1); None below two.
        difference: Paired difference to the baseline; None for the baseline itself.
        verdict: `better`, `worse` or `inconclusive`, by Holm's corrected test; `higher` or `lower` for a
            metric without a direction; None if there is no test.
        epochs: Median over seeds of the first epoch as good as the baseline's final mean; None if never.
        reached: How many seeds reached it.
        seconds: Mean wall time of training, in seconds.
        statuses: Status → number of trials.
        interval: Ends of the interval of an interquartile mean over several data sets.
        improvement: Probability that a trial is better than one of the baseline.
        detectable: Difference that this number of seeds detects with a probability of 80 %.
        needed: Number of seeds that would detect `Comparison.detect`; None if too many or not computed.
        reused: Trials that were copied instead of trained, as `recipe/time/arm/seed-0`.
        stopped: When successive halving stopped the arm, if it did. The difference to the baseline is then
            over these seeds, without an interval.
    """

    arm: str
    values: Mapping[int, float] | Mapping[tuple[str, int], float]
    mean: float | None
    std: float | None
    difference: Difference | None
    verdict: str | None
    epochs: float | None
    reached: int
    seconds: float | None
    statuses: Mapping[str, int]
    interval: tuple[float, float] | None = None
    improvement: float | None = None
    detectable: float | None = None
    needed: int | None = None
    reused: tuple[str, ...] = ()
    stopped: Stopped | None = None

    @property
    def n(self) -> int:
        """Return the number of seeds that count."""
        return len(self.values)

    @property
    def trials(self) -> int:
        """Return the number of trials of any status."""
        return sum(self.statuses.values())
