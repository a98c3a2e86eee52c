"""A comparison as text."""

import pytest

from mimetic.metrics import metric
from mimetic.study.comparing.comparison import Comparison, Row
from mimetic.study.comparing.rendering import cells, correction_note, duration, to_markdown
from mimetic.study.comparing.statistics import Difference


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
    header, rows = cells(STUDY)

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

    header, rows = cells(loss)

    assert header[2] == "test/loss"
    assert rows[0][2] == "0.0123 ± 0.5000"


def test_markdown_is_a_table_with_a_legend() -> None:
    """Header, rule, one line for each arm; the legend says what is better."""
    lines = to_markdown(STUDY).splitlines()

    assert lines[0].startswith("| arm | n | test/acc [%] | vs default |")
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| default | 2 | 91.00 ± 1.41 | – | – |  | 9.5 (2/2) | 42 s |"
    assert "higher is better" in lines[7]


def test_the_number_of_comparisons_is_stated() -> None:
    """One needs no correction; several are corrected, and the note says how."""
    several = Comparison(STUDY.metric, "default", (DEFAULT, BETTER, BETTER))

    assert correction_note(Comparison(STUDY.metric, "default", (DEFAULT, SINGLE))) == ""
    assert correction_note(STUDY) == "1 comparison with default, tested at 5%"
    assert correction_note(several) == NOTE
    assert f"{NOTE}." in to_markdown(several).splitlines()


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
