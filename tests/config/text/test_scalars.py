"""What plain scalars mean."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimetic.config.text.scalars import is_text, meant_bool, meant_number, parse_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.0", -0.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_values(text: str, value: object) -> None:
    """Numbers, booleans and null are read as in YAML 1.2."""
    assert (type(value), value) == (type(parse_scalar(text)), parse_scalar(text))


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "off",
        "yes",
        "no",
        "True",
        "FALSE",
        "Null",
        "NULL",
        "y",
        "n",
        "12:30",
        "1:30:45",
        "010",
        "00",
        "0.5.1",
        "0x1F",
        "0o17",
        "1_000",
        "2026-11-21",
        "1e",
        "e5",
        ".",
        "-",
        "+.inf5",
        "inf",
        "nan",
        "1,5",
        "--1",
        "1 2",
    ],
)
def test_text(text: str) -> None:
    """What YAML 1.1 made into booleans, times, octals or dates is text."""
    assert text == parse_scalar(text)
    assert is_text(text)


def test_nan() -> None:
    """`.nan` is a float; where numbers must be finite the schema refuses it."""
    assert math.isnan(parse_scalar(".nan"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e999", "too large"),
        ("-1e999", "too large"),
        ("9" * 101, "too long"),
        ("0." + "1" * 200, "too long"),
    ],
)
def test_refused_numbers(text: str, reason: str) -> None:
    """Numbers that cannot be meant are refused rather than read as infinity or at great cost."""
    with pytest.raises(ValueError, match=reason):
        parse_scalar(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_round_trip(value: float) -> None:
    """Every finite float reads back from the digits Python writes."""
    assert value == parse_scalar(repr(value))


@given(st.integers(min_value=-(10**90), max_value=10**90))
def test_whole_numbers_round_trip(value: int) -> None:
    """Every whole number up to the limit reads back."""
    assert value == parse_scalar(str(value))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", "5"),
        (" 1e-3 ", "1e-3"),
        ("0x10", "16"),
        ("0o17", "15"),
        ("1_000_000", "1000000"),
        ("010", "10"),
        ("-007", "-7"),
        ("00", "0"),
        ("00.5", "0.5"),
        ("0,5", "0.5"),
        ("10%", "0.1"),
        ("many", None),
        ("1,024", None),
        ("", None),
    ],
)
def test_meant_number(text: str, number: str | None) -> None:
    """A text that only looks like a number is read as people mean it, where that is clear."""
    assert number == meant_number(text)


@pytest.mark.parametrize(
    ("text", "word"), [("yes", "true"), ("Off", "false"), ("True", "true"), ("0", "false"), ("maybe", None)]
)
def test_meant_bool(text: str, word: str | None) -> None:
    """The usual other spellings of booleans are recognised for the hint."""
    assert word == meant_bool(text)
