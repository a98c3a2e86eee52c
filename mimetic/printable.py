"""Text as it is shown: counts with their nouns, and what came from elsewhere.

Names and values of recipes, checkpoints, covariance files and journals are foreign: a terminal executes
control characters, and a page markup. Both are escaped where they are printed or logged.
"""

import unicodedata
from html import escape


def printable(text: str) -> str:
    r"""Return a text with what a terminal would not show as escapes, e.g. `\x1b` and `\u202e`.

    These are control, format (bidirectional ones among them), private and unassigned characters, and halves
    of surrogate pairs. Line feeds and blanks of any width stay.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def plain_markdown(text: str) -> str:
    """Return a text that a page made from Markdown or HTML shows as it is written."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`[]!" else c for c in escaped)


def plain_html(text: str) -> str:
    """Return a text that a page of HTML shows as it is written, in attributes too."""
    return escape(printable(text))


def truncate(text: str, limit: int) -> str:
    """Return the text, ending in an ellipsis if it is longer than the limit."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def pluralize(number: int, thing: str) -> str:
    """Return a number with its noun: `1 trial`, `9 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
