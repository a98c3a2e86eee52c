"""Regular expressions of recipes: checked on reading, and matched with a time limit.

Recipes may come from strangers. Some patterns take exponential time to match: `regex` supports a timeout. A
few characters such as `a{1000000000}` take gigabytes to compile: repetitions are bounded before.
"""

import math
import re
from functools import lru_cache
from typing import Annotated

import regex
from pydantic import AfterValidator, Field

from mimetic.config.base import MAX_REGEX, validation_error
from mimetic.errors import UserError

TIME_LIMIT = 0.1
"""Timeout of one match, in seconds."""

MAX_EXPANDED = 100_000
"""Largest length of a pattern times all its numbers of repetitions, which bounds the compiled size."""

_REPETITION = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


class _PatternError(ValueError):
    """Why a pattern is invalid, and at which character."""

    def __init__(self, reason: str, at: int | None) -> None:
        super().__init__(reason)
        self.at = at


@lru_cache(maxsize=256)
def compiled(pattern: str) -> "regex.Pattern[str]":
    """Compile a pattern.

    Raises:
        ValueError: If it is invalid or too large; the message is the reason.
    """
    _check_size(pattern)
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise _PatternError(str(getattr(error, "msg", error)), getattr(error, "pos", None)) from None
    except Exception as error:  # noqa: BLE001 - a RecursionError, or a KeyError for a named list
        raise _PatternError(f"{type(error).__name__}: {error}", None) from None


def _check_size(pattern: str) -> None:
    """Refuse a pattern that would be large when compiled; a `{9}` that is no repetition counts, too."""
    found = [
        (max(1, *(int(number) for number in repetition.groups("0") if number)), repetition.start())
        for repetition in _REPETITION.finditer(pattern[:MAX_REGEX])
        if any(repetition.groups())
    ]
    size = len(pattern) * math.prod(times for times, _ in found)
    if len(pattern) > MAX_REGEX:
        raise _PatternError(f"more than {MAX_REGEX} characters", MAX_REGEX)
    if size > MAX_EXPANDED:
        reason = f"its repetitions expand it to more than {MAX_EXPANDED:,} characters"
        raise _PatternError(reason, max(found)[1])


def fullmatch(pattern: str, name: str) -> "regex.Match[str] | None":
    """Match a whole name.

    Raises:
        UserError: If the match takes longer than the time limit.
    """
    try:
        return compiled(pattern).fullmatch(name, timeout=TIME_LIMIT)
    except TimeoutError:
        message = (
            f"the regular expression {pattern!r} takes more than {TIME_LIMIT} s on `{name}`; "
            "avoid repetitions inside repetitions, such as (a+)+"
        )
        raise UserError(message, code="MIM-C041") from None


def _checked(pattern: str) -> str:
    try:
        compiled(pattern)
    except _PatternError as error:
        glob = pattern.startswith("*") or "[!" in pattern
        hint = "this is a regular expression, not a file pattern: write `.*` for any text" if glob else None
        message = f"not a regular expression: {error}"
        raise validation_error(message, code="MIM-C042", offset=error.at, hint=hint) from None
    return pattern


Regex = Annotated[str, Field(min_length=1, max_length=MAX_REGEX), AfterValidator(_checked)]
"""A regular expression that has been compiled once."""

_PARAMETERS = (r"\.weight", r"\.bias", ".weight", ".bias")

WRAPPER_SEGMENTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Name segments that only wrappers add: torch.compile, FSDP, activation checkpointing."""


def _names_a_layer(pattern: str) -> str:
    """Refuse patterns that no canonical layer name can match, for the usual reasons."""
    if pattern.startswith("/"):
        hint = r"segments are separated by dots: 'blocks\.0\.spatial'"
        raise validation_error("layer names do not start with `/`", code="MIM-C043", hint=hint)
    bare = pattern.removesuffix("$")
    suffix = next((s for s in _PARAMETERS if bare.endswith(s)), None)
    # A parametrized layer has a sub-module named after its parameter.
    if suffix is not None and "parametrizations" not in pattern:
        layer, param = bare.removesuffix(suffix), suffix.lstrip("\\.")
        hint = f"layer names do not include the parameter: write `layer: '{layer}'` and `param: {param}`"
        message = f"`layer` ends in the name of a parameter, `{param}`"
        raise validation_error(message, code="MIM-C044", hint=hint)
    wrapper = next((w for w in sorted(WRAPPER_SEGMENTS) if w in pattern), None)
    if wrapper is not None:
        hint = "names are canonical: the segments of torch.compile, DDP and FSDP are left out"
        raise validation_error(f"no layer name contains `{wrapper}`", code="MIM-C045", hint=hint)
    return pattern


LayerRegex = Annotated[Regex, AfterValidator(_names_a_layer)]
"""A regular expression for the whole canonical name of a layer."""
