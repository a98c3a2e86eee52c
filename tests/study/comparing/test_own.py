"""`mimetic.compare` on results of one's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mimetic
from mimetic.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"arm": arm, "seed": seed, "value": base + seed + 0.1 * seed * (arm == "b")}
    for arm, base in (("a", 1.0), ("b", 3.0))
    for seed in range(4)
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ("arm", "seed", "value")}


class Frame:
    """A data frame: columns by name, that are no lists."""

    def __contains__(self, name: str) -> bool:
        return name in COLUMNS

    def __getitem__(self, name: str) -> "np.ndarray[Any, Any]":
        return np.array(COLUMNS[name])


def test_every_form_of_a_table_is_the_same(tmp_path: Path) -> None:
    """Rows, columns, a data frame and a CSV file; the first arm is the baseline."""
    path = tmp_path / "results.csv"
    path.write_text("arm,seed,value\n" + "".join(f"{r['arm']},{r['seed']},{r['value']}\n" for r in ROWS))

    found = [mimetic.compare(table) for table in (ROWS, COLUMNS, Frame(), path, str(path))]

    assert all(one == found[0] for one in found)
    row = found[0].row("b")
    assert (found[0].baseline, row.n, row.verdict, row.improvement) == (
        "a",
        4,
        "better",
        pytest.approx(0.90625),
    )
    assert row.difference is not None
    assert row.difference.mean == pytest.approx(2.15)


def test_lower_may_be_better_and_several_data_sets_are_compared_together() -> None:
    """A column `data_set` gives one row for each arm."""
    rows = [row | {"data_set": name} for name in ("x", "y") for row in ROWS]

    found = mimetic.compare(rows, baseline="a", direction="lower", metric="perplexity")

    assert (found.data_sets, found.metric.name) == (("x", "y"), "perplexity")
    assert (found.row("b").n, found.row("b").verdict) == (8, "worse")


@pytest.mark.parametrize(
    ("table", "changes", "code"),
    [
        (ROWS, {"baseline": "c"}, "MIM-Y204"),
        (ROWS, {"direction": "up"}, "MIM-Y200"),
        (ROWS, {"level": 95}, "MIM-Y201"),
        (ROWS, {"detect": -1.0}, "MIM-Y201"),
        ([*ROWS, ROWS[0]], {}, "MIM-Y202"),
        ([], {}, "MIM-Y203"),
        ([("a", 0, 1.0)], {}, "MIM-Y205"),
        (3, {}, "MIM-Y206"),
        (COLUMNS | {"value": [1.0]}, {}, "MIM-Y207"),
        ("nowhere.csv", {}, "MIM-Y208"),
        ({"arm": ["a"], "value": [1.0]}, {}, "MIM-Y209"),
        ([{"arm": "a", "seed": 0}], {}, "MIM-Y209"),
        ([ROWS[0] | {"arm": 1}], {}, "MIM-Y210"),
        ([ROWS[0] | {"seed": 0.5}], {}, "MIM-Y211"),
        ([ROWS[0] | {"seed": True}], {}, "MIM-Y211"),
        ([ROWS[0] | {"value": float("nan")}], {}, "MIM-Y212"),
        ([ROWS[0] | {"value": "high"}], {}, "MIM-Y212"),
    ],
)
def test_wrong_tables(table: Any, changes: dict[str, Any], code: str) -> None:
    """Each is an error that names the row, or the column that is missing."""
    with pytest.raises(UserError) as caught:
        mimetic.compare(table, **changes)
    assert caught.value.code == code
