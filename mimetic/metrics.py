"""Define the metrics: what a name means, which direction is better, and how values are shown.

A metric is named `<split>/<measure>[_<probe>]`: `test/acc`, `val/loss`, `test/acc_len64`. A few have no
split, e.g. `lr`. Journals, MLflow, the terminal, tables and figures share these names and definitions.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["higher", "lower"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Metric:
    """The definition of a metric.

    Attributes:
        name: Its name in journals and in MLflow, e.g. `test/acc_len64`.
        direction: Which values are better; None if neither.
        unit: Unit of displayed values; empty if there is none.
        factor: Displayed value per logged value: accuracies are logged as fractions and shown in percent.
        decimals: Decimal places of displayed values.
        is_loss: Whether it is a loss.
        split: `train`, `val` or `test`; empty if it belongs to no split.
        probe: Name of the extra test set it was measured on, e.g. `len64`; empty for the split itself.
    """

    name: str
    direction: Direction | None = None
    unit: str = ""
    factor: float = 1.0
    decimals: int = 4
    is_loss: bool = False
    split: str = ""
    probe: str = ""

    @property
    def higher_is_better(self) -> bool:
        """Return whether higher values are better; False also if there is no direction."""
        return self.direction == "higher"

    @property
    def label(self) -> str:
        """Return the name with the unit, for axes and headers: `test/acc [%]`."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def format(self, value: float) -> str:
        """Format a logged value for display: `96.76%`, `0.1234`, `48.20 s`."""
        scaled = self.factor * value
        number = f"{scaled:.{self.decimals}f}" if abs(scaled) < _LARGE else f"{scaled:.4g}"
        return f"{number}{'' if self.unit in {'', '%'} else ' '}{self.unit}"


_LARGE = 1e6

_BY_SPLIT = {
    "acc": Metric("acc", "higher", unit="%", factor=100.0, decimals=2),
    "loss": Metric("loss", "lower", is_loss=True),
}
_WITHOUT_SPLIT = {
    "images_per_second": Metric("images_per_second", "higher", unit="1/s", decimals=0),
    "epoch_seconds": Metric("epoch_seconds", "lower", unit="s", decimals=2),
}

COMPARABLE = rf"^({'|'.join(SPLITS)})/({'|'.join(_BY_SPLIT)})(_len\d+)?$"
"""Names a study's arms can be compared by (`study.metric`)."""


def metric(name: str) -> Metric:
    """Return the definition of a metric; an unknown name has neither direction nor unit."""
    found = re.fullmatch(rf"({'|'.join(SPLITS)})/({'|'.join(_BY_SPLIT)})(?:_(.+))?", name)
    if found is None:
        return _WITHOUT_SPLIT.get(name, Metric(name))
    return replace(_BY_SPLIT[found[2]], name=name, split=found[1], probe=found[3] or "")


def metric_name(split: str, measure: str, probe: str = "") -> str:
    """Return the name of a measure (`acc` or `loss`) on a split, or on a probe of it."""
    return f"{split}/{measure}{f'_{probe}' if probe else ''}"


def related(name: str) -> tuple[str, ...]:
    """Return a metric and those to look at beside it, in this order.

    They are its counterpart (the loss of an accuracy and vice versa), both on the whole split, and both on
    the training split: `test/acc` → `test/acc`, `test/loss`, `train/acc`, `train/loss`.
    """
    chosen = metric(name)
    measures = sorted(_BY_SPLIT, key=lambda measure: _BY_SPLIT[measure].is_loss != chosen.is_loss)
    places = [(chosen.split, chosen.probe), (chosen.split, ""), ("train", "")]
    names = [metric_name(split, m, probe) for split, probe in places if split for m in measures]
    return tuple(dict.fromkeys([name, *names]))
