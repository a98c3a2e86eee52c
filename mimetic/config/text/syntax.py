"""PyYAML's errors of syntax in plain words, with the usual repair."""

import re
from collections.abc import Callable
from typing import NamedTuple

import yaml

from mimetic.config.errors import FilePosition, Issue

_QUOTES = "regular expressions go in single quotes: 'blocks\\.\\d+'"


class _Known(NamedTuple):
    problem: str  # regular expression on PyYAML's words
    message: str
    hint: str | None
    context: bool = False  # whether the place where it began is the one to show
    within: str = ""  # regular expression on PyYAML's words for where it began


_KNOWN = (
    _Known(r"found character '\\t' .*", "a tab stands where YAML wants spaces", "indent with spaces"),
    _Known(
        r"found character '(?P<c>.)' that cannot start any token",
        "a text cannot begin with `{c}`",
        "put it in quotes",
    ),
    _Known(r"found unknown escape character '(?P<c>.)'", "`\\{c}` means nothing in double quotes", _QUOTES),
    _Known(
        r"expected escape sequence of \d+ hexadecimal numbers.*",
        "this escape needs hexadecimal digits",
        _QUOTES,
    ),
    _Known(
        r"found unexpected end of stream",
        "the quote opened here is never closed",
        None,
        context=True,
        within=r"while scanning a quoted scalar",
    ),
    _Known(
        r"found unexpected document separator",
        "the quote opened here is not closed before the document ends",
        None,
        context=True,
    ),
    _Known(
        r"mapping values are not allowed here",
        "a `:` cannot stand here",
        "put quotes around a text that holds `: `, and compare the indentation with the line above",
    ),
    _Known(
        r"could not find expected ':'",
        "a key without a `:`",
        "write `key: value`; a longer text on several lines needs quotes or `|`",
        context=True,
    ),
    _Known(
        r"expected ',' or '\]', but got '<stream end>'",
        "the `[` opened here is never closed",
        None,
        context=True,
    ),
    _Known(
        r"expected ',' or '\}', but got '<stream end>'",
        "the `{{` opened here is never closed",
        None,
        context=True,
    ),
    _Known(
        r"expected ',' or '\]', but got .*",
        "expected `,` or `]` in the list",
        "put quotes around a text that holds brackets, braces, quotes or `: `",
    ),
    _Known(
        r"expected ',' or '\}', but got .*",
        "expected `,` or `}}` in the map",
        "put quotes around a text that holds brackets, braces, quotes or `: `",
    ),
    _Known(
        r"expected the node content, but found '(?P<c>[\]\}])'",
        "this `{c}` closes nothing",
        None,
    ),
    _Known(
        r"expected the node content, but found '<stream end>'",
        "the file ends where a value should stand",
        None,
    ),
    _Known(r"expected the node content, but found '(?P<c>.+)'", "expected a value, found `{c}`", None),
    _Known(
        r"expected <block end>, but found '<(block mapping start|block sequence start)>'",
        "this line is indented differently from the ones it belongs to",
        "align it with the line above, or indent it below its key",
    ),
    _Known(
        r"expected <block end>, but found '-'",
        "a list entry stands among the keys of a map",
        "indent the entries of a list alike, below their key",
    ),
    _Known(
        r"expected <block end>, but found '\?'",
        "a key stands among the entries of a list",
        "align the keys of a map, and begin each entry of a list with `- `",
    ),
    _Known(r"expected <block end>, but found ':'", "a key is missing before this `:`", None),
    _Known(
        r"expected <block end>, but found '(?P<c>[\]\}])'",
        "this `{c}` closes nothing",
        None,
    ),
    _Known(
        r"expected <block end>, but found '<scalar>'",
        "text follows a value that has ended",
        "put quotes around the whole value",
    ),
    _Known(
        r"expected <block end>, but found '(?P<c>.+)'",
        "`{c}` follows a value that has ended",
        "put quotes around the whole value",
    ),
    _Known(
        r"sequence entries are not allowed here",
        "a list entry cannot stand here",
        "begin the list on a line of its own, below its key",
    ),
    _Known(r"mapping keys are not allowed here", "a key cannot stand here", None),
    _Known(
        r"expected '<document start>', but found .*",
        "text follows the end of the recipe's map",
        "compare the indentation with the first line",
    ),
    _Known(
        r"expected alphabetic or numeric character, but found .*",
        "a name should follow `*` or `&`",
        "put quotes around a text that begins with `*` or `&`",
    ),
    _Known(
        r"expected chomping or indentation indicators, but found .*",
        "`|` and `>` begin a text on the lines below",
        "put quotes around a text that begins with `|` or `>`",
    ),
)


def explain_syntax(
    error: yaml.MarkedYAMLError, locate: Callable[[int, int], FilePosition], text: str
) -> Issue:
    """Return an error of PyYAML as an issue.

    Args:
        error: The error.
        locate: Gives the mark of a line and a column, both from 0.
        text: The text that was parsed.
    """
    problem = "it cannot be read" if error.problem is None else error.problem.strip()
    context = "" if error.context is None else error.context.strip()
    place = error.problem_mark if error.problem_mark is not None else error.context_mark
    message, hint = f"this is not YAML: {problem}", None
    for known in _KNOWN:
        found = re.fullmatch(known.problem, problem, re.DOTALL)
        if found is None or re.match(known.within, context) is None:
            continue
        message, hint = known.message.format(**found.groupdict()), known.hint
        if known.context and error.context_mark is not None:
            place = error.context_mark
        break
    if place is None:
        return Issue(message, (), None, hint)
    if problem.startswith("expected ',' or") and error.context_mark is not None:
        opened = error.context_mark.line
        hint = f"{hint}; or close the bracket of line {opened + 1}" if opened < place.line else hint
    if problem.startswith("mapping values"):
        before = _glued(text, place.line)
        if before is not None:
            return Issue("a space is missing after this `:`", (), locate(*before), "write `key: value`")
    return Issue(message, (), locate(*_within(text, place.line, place.column)), hint)


def _glued(text: str, line: int) -> tuple[int, int] | None:
    """Find `key:value` on the last line before one: YAML reads it as text that goes on."""
    lines = text.splitlines()[:line]
    found = re.fullmatch(r"(\s*(?:- )?[\w.-]+):\S.*", lines[-1]) if lines else None
    return None if found is None else (line - 1, len(found[1]))


def _within(text: str, line: int, column: int) -> tuple[int, int]:
    """Move a place after the last line's break to the end of that line."""
    lines = text.splitlines()
    if lines and line >= len(lines):
        return len(lines) - 1, len(lines[-1])
    return line, column
