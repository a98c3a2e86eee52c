"""A comparison as text."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from mimetic.metrics import metric
from mimetic.study.comparing.formats import comma_separated, latex, markdown
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.rows import Row
from mimetic.study.comparing.statistics import Difference
from mimetic.study.comparing.tables import correction_note, duration, table_of


def row(arm: str, **fields: object) -> Row:
    """Return a row; what is not given is missing."""
    empty: dict[str, object] = {
        "values": {},
        "mean": None,
        "std": None,
        "difference": None,
        "verdict": None,
        "epochs": None,
        "reached": 0,
        "seconds": None,
        "statuses": {"FAILED": 1},
    }
    return Row(arm=arm, **(empty | fields))  # type: ignore[arg-type]


DEFAULT = row(
    "default",
    values={0: 90.0, 1: 92.0},
    mean=91.0,
    std=1.41421,
    epochs=9.5,
    reached=2,
    seconds=42.4,
    statuses={"FINISHED": 2},
)
BETTER = row(
    "closed-form",
    values={0: 95.0, 1: 96.0},
    mean=95.5,
    std=0.70711,
    difference=Difference(2, 4.5, -1.85, 10.85, p=0.07),
    verdict="inconclusive",
    reached=0,
    seconds=3723.0,
    statuses={"FINISHED": 2, "FAILED": 1},
)
SINGLE = row(
    "single",
    values={0: 88.5},
    mean=88.5,
    difference=Difference(1, -1.5, reason="one pair of seeds has no interval"),
    epochs=3,
    reached=1,
    statuses={"FINISHED": 1},
)
NOTE = "2 comparisons with default: Holm-corrected, 5% family-wise error"
STUDY = Comparison(metric("test/acc"), "default", (DEFAULT, BETTER, SINGLE, row("dead")))


def test_cells_say_what_is_known_and_what_is_not() -> None:
    """Means with scatter, signed differences, intervals or the reason for none."""
    table = table_of(STUDY)
    header, rows = list(table.header), [list(row) for row in table.rows]

    assert header[:4] == ["arm", "n", "test/acc [%]", "vs default"]
    assert rows == [
        ["default", "2", "91.00 ± 1.41", "–", "–", "", "9.5 (2/2)", "42 s"],
        [
            "closed-form",
            "2 of 3",
            "95.50 ± 0.71",
            "+4.50",
            "[−1.85, +10.85]",
            "inconclusive",
            "not reached (0/2)",
            "1 h 02 min",
        ],
        ["single", "1", "88.50", "−1.50", "one pair of seeds has no interval", "", "3 (1/1)", "–"],
        ["dead", "0 of 1", "–", "–", "–", "", "–", "–"],
    ]


def test_losses_have_no_unit_and_more_digits() -> None:
    """A loss of 0.0123 would be 0.01 otherwise."""
    loss = Comparison(metric("test/loss"), "default", (row("default", mean=0.01234, std=0.5, statuses={}),))

    table = table_of(loss)
    header, rows = table.header, table.rows

    assert header[2] == "test/loss"
    assert rows[0][2] == "0.0123 ± 0.5000"


def test_markdown_is_a_table_with_a_legend() -> None:
    """Header, rule, one line for each arm; the legend says what is better."""
    lines = markdown([STUDY]).splitlines()

    assert lines[0].startswith("| arm | n | test/acc [%] | vs default |")
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| default | 2 | 91.00 ± 1.41 | – | – |  | 9.5 (2/2) | 42 s |"
    assert "higher is better" in lines[7]


def test_the_number_of_comparisons_is_stated() -> None:
    """One needs no correction; several are corrected, and the note says how."""
    several = Comparison(STUDY.metric, "default", (DEFAULT, BETTER, BETTER))

    assert correction_note(Comparison(STUDY.metric, "default", (DEFAULT, SINGLE))) == []
    assert correction_note(STUDY) == ["1 comparison with default, tested at 5%"]
    assert correction_note(several) == [NOTE]
    assert f"{NOTE}." in markdown([several])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.42, "0.4 s"),
        (9.4, "9.4 s"),
        (59.6, "1 min 00 s"),
        (48.2, "48 s"),
        (185.0, "3 min 05 s"),
        (7620.0, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    """As people read them."""
    assert duration(seconds) == expected


FOREIGN = r"a|b_<i>&%#\$~^](x)"


@pytest.mark.parametrize("form", [markdown, latex, comma_separated])
def test_foreign_names_end_no_cell(form: Callable[[Sequence[Comparison]], str]) -> None:
    """Whatever an arm is called, each format has as many cells in each row as in the header."""
    study = Comparison(STUDY.metric, "default", (DEFAULT, replace(BETTER, arm=FOREIGN)))
    text = form([study])

    if form is comma_separated:
        first, second = list(csv.DictReader(io.StringIO(text)))
        assert (second["arm"], second["difference"], second["difference_p_holm"]) == (FOREIGN, "4.5", "")
        assert first["difference"] == ""
        return
    separator = r"(?<!\\)\|" if form is markdown else r"(?<!\\)&"
    start = "|" if form is markdown else ("arm", "default", "a$|$b", "a|b")
    lines = [line for line in text.splitlines() if line.startswith(start)]
    assert len(lines) == (4 if form is markdown else 3)
    assert len({len(re.split(separator, line)) for line in lines}) == 1


def test_latex_has_no_special_character_left() -> None:
    """Every one of LaTeX's is escaped."""
    text = latex([Comparison(STUDY.metric, "default", (replace(DEFAULT, arm=FOREIGN),))])

    assert (
        r"a|b\_<i>\&\%\#\textbackslash{}\$\textasciitilde{}\textasciicircum{}](x) & 2 & 91.00 $\pm$ 1.41"
        in text
    )


def test_optional_columns_are_left_out_where_there_is_no_room() -> None:
    """The time first; what cannot be left out stays, and so does everything if that does not help."""
    table = table_of(STUDY)

    assert "time" not in table.fitted(100).header
    assert table.fitted(100).header[:6] == table.header[:6]
    assert table.fitted(10) == table
