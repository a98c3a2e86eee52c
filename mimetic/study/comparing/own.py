"""Compare results from elsewhere: a table of arm, seed and value, and the data set if there are several."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol, SupportsFloat

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.files import read_regular
from mimetic.metrics import Direction, Metric
from mimetic.study.comparing.comparison import answer
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.questions import Facts, Options, Question
from mimetic.study.comparing.statistics import LEVEL


class Columns(Protocol):
    """Columns by name: a mapping, or a data frame."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> Iterable[object]: ...


Results = str | PathLike[str] | Columns | Sequence[Mapping[str, object]]

_NEEDED = ("arm", "seed", "value")
_COLUMNS = (*_NEEDED, "data_set")


def compare(
    results: Results,
    *,
    baseline: str | None = None,
    metric: str = "value",
    direction: Direction | None = "higher",
    detect: float | None = None,
    level: float = LEVEL,
) -> Comparison:
    """Compare arms by results that were not trained here, as `mimetic compare` does.

    Args:
        results: Columns `arm`, `seed`, `value`, and `data_set` if there are several: a mapping of columns, a
            data frame, a sequence of rows, or the path of a CSV file with these names in its first line.
            Each arm has at most one value for a seed on a data set, in any unit.
        baseline: The arm that the others are compared with; the first unless given.
        metric: Name of the value, for tables.
        direction: Which values are better, `higher` or `lower`; None if neither.
        detect: Also return how many seeds would detect this difference.
        level: Coverage of the intervals; 1 - level is the family-wise error rate of the verdicts.

    Returns:
        The comparison: differences paired by seed, or over several data sets interquartile means.

    Raises:
        UserError: If a column is missing, a row has a value of another kind or is there twice, or the
            baseline or an argument is none there is.
    """
    if direction not in {"higher", "lower", None}:
        raise UserError(
            f"direction: expected 'higher', 'lower' or None, found {direction!r}", code="MIM-Y200"
        )
    if not 0.0 < level < 1.0 or (detect is not None and not 0.0 < detect < math.inf):
        raise UserError("level must be between 0 and 1, and detect above 0", code="MIM-Y201")
    values: dict[str, dict[str, dict[int, float]]] = {}
    for place, row in enumerate(_rows(results), start=1):
        arm, seed, value, data_set = _checked(row, place)
        seeds = values.setdefault(arm, {}).setdefault(data_set, {})
        if seed in seeds:
            of = f" on `{data_set}`" if data_set else ""
            raise UserError(
                f"row {place}: arm `{arm}` already has a value for seed {seed}{of}; leave one row",
                code="MIM-Y202",
            )
        seeds[seed] = value
    if not values:
        raise UserError("there is no result to compare; give one row for each arm and seed", code="MIM-Y203")
    chosen = next(iter(values)) if baseline is None else baseline
    if chosen not in values:
        raise UserError(
            f"there is no arm `{chosen}` to compare with; arms: {listed(values)}", code="MIM-Y204"
        )
    facts = {arm: Facts({"FINISHED": sum(map(len, strata.values()))}) for arm, strata in values.items()}
    question = Question(Metric(metric, direction), values, facts)
    options = Options(metrics=(metric,), baseline=chosen, detect=detect, level=level)
    return answer([question], options)[0]


def _rows(results: Results) -> list[Mapping[str, object]]:
    """Return the rows of a table of any accepted form.

    Raises:
        UserError: If it is no table, or a column is missing or has another length.
    """
    if isinstance(results, str | PathLike):
        return _read(Path(results))
    if isinstance(results, Sequence):
        rows: list[Mapping[str, object]] = []
        for place, row in enumerate(results, start=1):
            if not isinstance(row, Mapping):
                raise UserError(
                    f"row {place}: expected a mapping such as {{'arm': 'a', 'seed': 0, 'value': 0.5}}",
                    code="MIM-Y205",
                )
            _check_columns(row, f"row {place}")
            rows.append(row)
        return rows
    try:
        names = [name for name in _COLUMNS if name in results]
        columns = [list(results[name]) for name in names]
    except TypeError:
        raise UserError(
            f"expected a table, rows or the path of a CSV file, found {type(results).__name__}",
            code="MIM-Y206",
        ) from None
    _check_columns(names, "the table")
    if len(set(map(len, columns))) > 1:
        sizes = ", ".join(f"{name} {len(column)}" for name, column in zip(names, columns, strict=True))
        raise UserError(f"the columns differ in length: {sizes}; give each row a value", code="MIM-Y207")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _read(path: Path) -> list[Mapping[str, object]]:
    """Read a CSV file.

    Raises:
        UserError: If it cannot be read or a column is missing.
    """
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", code="MIM-Y208") from None
    reader = csv.DictReader(lines)
    _check_columns([] if reader.fieldnames is None else reader.fieldnames, str(path))
    return list(reader)


def _check_columns(names: Iterable[str], where: str) -> None:
    missing = [name for name in _NEEDED if name not in set(names)]
    if missing:
        raise UserError(
            f"{where}: no column {listed(missing)}; needed are {listed(_NEEDED)}, and `data_set` if there "
            "are several",
            code="MIM-Y209",
        )


def _checked(row: Mapping[str, object], place: int) -> tuple[str, int, float, str]:
    """Return arm, seed, value and data set of a row.

    Raises:
        UserError: If one is of another kind.
    """
    arm, data_set = row["arm"], row.get("data_set", "")
    if not isinstance(arm, str) or not arm or not isinstance(data_set, str):
        raise UserError(
            f"row {place}: arm and data_set must be text, found {arm!r} and {data_set!r}", code="MIM-Y210"
        )
    seed, value = _number(row["seed"]), _number(row["value"])
    if seed is None or seed != int(seed):
        raise UserError(
            f"row {place}: the seed must be a whole number, found {row['seed']!r}", code="MIM-Y211"
        )
    if value is None:
        raise UserError(
            f"row {place}: the value must be a finite number, found {row['value']!r}; omit failed runs",
            code="MIM-Y212",
        )
    return arm, int(seed), value, data_set


def _number(value: object) -> float | None:
    """Return a finite number, also one of numpy or as text; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | SupportsFloat):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
