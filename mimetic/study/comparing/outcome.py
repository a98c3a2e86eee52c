"""The outcome of a comparison: its rows, and how it is shown."""

from dataclasses import asdict, dataclass

from mimetic.files import JsonObject
from mimetic.metrics import Metric
from mimetic.study.comparing.questions import Epoch
from mimetic.study.comparing.rows import Row
from mimetic.study.comparing.statistics import LEVEL
from mimetic.study.comparing.tables import headline, page_of


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """The arms compared by one metric.

    Attributes:
        metric: The metric.
        baseline: The arm that the others are compared with.
        rows: One for each arm, in the order of the recipe.
        level: Coverage of the intervals; 1 - level is the family-wise error rate of the verdicts.
        others: Number of tests of other tables, and of stopped arms, that were corrected together with these.
        epoch: Which epoch of each trial counts.
        detect: The difference that `Row.needed` is about.
        data_sets: Names of the data sets, if there are several.
        horizon: With a cost to reach a target, the cost that counts for trials that did not reach it.
    """

    metric: Metric
    baseline: str
    rows: tuple[Row, ...]
    level: float = LEVEL
    others: int = 0
    epoch: Epoch = "last"
    detect: float | None = None
    data_sets: tuple[str, ...] = ()
    horizon: float | None = None

    def __repr__(self) -> str:
        """Return the result in one line."""
        return f"<Comparison: {headline(self)}>"

    def _repr_html_(self) -> str:
        return page_of(self)

    @property
    def comparisons(self) -> int:
        """Return the number of tests that are corrected together, those of `others` included."""
        return self.others + sum(
            row.difference is not None and row.difference.p is not None for row in self.rows
        )

    def row(self, arm: str) -> Row:
        """Return the row of an arm."""
        return next(row for row in self.rows if row.arm == arm)

    def to_dict(self) -> JsonObject:
        """Return plain values that JSON can hold."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "direction": self.metric.direction,
            "baseline": self.baseline,
            "level": self.level,
            "comparisons": self.comparisons,
            "epoch": self.epoch,
            "detect": self.detect,
            "data_sets": list(self.data_sets),
            "horizon": self.horizon,
            "arms": [
                {
                    "n": row.n,
                    **asdict(row),
                    "interval": None if row.interval is None else list(row.interval),
                    "reused": list(row.reused),
                    "values": {_plain_key(key): value for key, value in row.values.items()},
                }
                for row in self.rows
            ],
        }

    def metrics(self) -> dict[str, float]:
        """Return the numbers under flat names, e.g. `difference/closed-form`; missing ones are left out."""
        found: dict[str, float | None] = {}
        for row in self.rows:
            numbers = {"mean": row.mean, "std": row.std, "epochs": row.epochs}
            if row.difference is not None:
                numbers["difference"] = row.difference.mean
                numbers["difference_low"] = row.difference.low
                numbers["difference_high"] = row.difference.high
                numbers["difference_p_holm"] = row.difference.p_holm
            found |= {f"{name}/{row.arm}": value for name, value in numbers.items()}
        return {name: value for name, value in found.items() if value is not None}


def _plain_key(key: int | tuple[str, int]) -> str:
    return str(key) if isinstance(key, int) else f"{key[0]}/{key[1]}"
