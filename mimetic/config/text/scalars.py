"""What a plain YAML scalar means: YAML 1.2's core schema, a little stricter.

`1e-4` is a float; `on`, `yes`, `True`, `12:30`, `010`, `0x1F`, `1_000` and `2026-11-21` are text.
`null`, `~` and nothing at all are null; only `true` and `false` are booleans.
"""

import math
import re

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}

MAX_DIGITS = 100
"""Maximum length of a number, in characters."""

Scalar = str | int | float | bool | None


def parse_scalar(text: str) -> Scalar:
    """Return the value of a plain (unquoted) scalar.

    Raises:
        ValueError: For numbers too long or too large to be meant; the message names the limit.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > MAX_DIGITS:
        message = f"a number of {len(text)} characters is too long"
        raise ValueError(message)
    if _INT.fullmatch(text) is not None:
        return int(text)
    value = float(text)
    if math.isinf(value):
        message = f"{text} is too large for a floating-point number"
        raise ValueError(message)
    return value


def is_text(text: str) -> bool:
    """Return whether a plain scalar is read as text, here and by readers of YAML 1.1."""
    return text not in _WORDS and text not in _SPECIAL and _FLOAT.fullmatch(text) is None


_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_UNDERSCORES = re.compile(r"[-+]?[1-9][0-9]*(?:_[0-9]+)+")
_LEADING_ZERO = re.compile(r"(?P<sign>[-+]?)0+(?P<digits>[0-9]+(?:\.[0-9]*)?)")
_COMMA = re.compile(r"[-+]?[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})")
_PERCENT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?%")


def meant_number(text: str) -> str | None:
    """Return the number a text was probably meant to be, as it should be written; None where it is none."""
    word = text.strip()[:MAX_DIGITS]
    number = None
    if word and _FLOAT.fullmatch(word):
        number = word
    elif _OTHER_BASE.fullmatch(word):
        number = str(int(word, 0))
    elif _UNDERSCORES.fullmatch(word):
        number = word.replace("_", "")
    elif (zeros := _LEADING_ZERO.fullmatch(word)) is not None:
        number = zeros["sign"] + zeros["digits"]
    elif _COMMA.fullmatch(word):
        number = word.replace(",", ".")
    elif (percent := _PERCENT.fullmatch(word)) is not None:
        number = f"{float(percent['number']) / 100:g}"
    return number


_YES = {"yes", "on", "y", "true", "1"}
_NO = {"no", "off", "n", "false", "0"}


def meant_bool(text: str) -> str | None:
    """Return the boolean a text was probably meant to be, as it should be written."""
    word = text.strip().lower()
    return "true" if word in _YES else "false" if word in _NO else None
