"""Errors in a recipe, with their positions and repairs.

Each error is an `Issue`; a `RecipeError` has all of them and prints each with its line, a caret below the
position, and a repair.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mimetic.errors import UserError

Step = str | int

MAX_ISSUES = 100
"""Most errors that are reported at once."""

_WIDEST = 100
_PLAIN_KEY = re.compile(r"[\w.\-+ ]+")


@dataclass(frozen=True, slots=True)
class FilePosition:
    """A position in a source.

    Attributes:
        file: Path as given by the user, or `--set` for the command line.
        line: From 1; 0 is the file as a whole.
        column: From 1, in characters.
        text: The line itself, for the caret.
    """

    file: str
    line: int
    column: int
    text: str | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.file if self.line == 0 else f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Issue:
    """One error.

    Attributes:
        message: What is wrong, without a full stop.
        path: Keys that lead to it; arms by name, rules by id.
        mark: Its position; None if the recipe is a mapping.
        hint: The repair.
        first: An earlier position that the message is also about.
        code: Stable identifier of the kind of error, e.g. `MIM-R012`.
        first_note: Note beside the caret of `first`.
    """

    message: str
    path: tuple[Step, ...] = ()
    mark: FilePosition | None = None
    hint: str | None = None
    first: FilePosition | None = None
    code: str = ""
    first_note: str = "first here"

    def __str__(self) -> str:
        head = [] if self.mark is None else [str(self.mark)]
        head += [dotted(self.path)] if self.path else []
        code = f" [{self.code}]" if self.code else ""
        lines = [": ".join([*head, self.message]) + code]
        if self.first is not None and self.first.text is not None:
            lines += snippet(self.first, note=self.first_note)
        if self.mark is not None and self.mark.text is not None:
            lines += snippet(self.mark)
        if self.hint is not None:
            lines.append(f"    hint: {self.hint}")
        return "\n".join(lines)


class RecipeError(UserError):
    """Everything that is wrong with a recipe, by position.

    Attributes:
        issues: The errors, each once, sorted by file, line and column.
    """

    def __init__(self, issues: Iterable[Issue]) -> None:
        # arms that inherit a rule share its error: report it once
        unique: dict[tuple[str, object], Issue] = {}
        for issue in issues:
            unique.setdefault((issue.message, issue.path if issue.mark is None else issue.mark), issue)
        self.issues: tuple[Issue, ...] = tuple(sorted(unique.values(), key=_position))
        super().__init__(self.issues)

    def __str__(self) -> str:
        parts = [str(issue) for issue in self.issues[:MAX_ISSUES]]
        if len(self.issues) >= MAX_ISSUES:
            parts.append(f"{MAX_ISSUES} errors; further ones are not shown")
        elif len(parts) > 1:
            parts.append(f"{len(parts)} errors")
        return "\n\n".join(parts)


class IssueList(list[Issue]):
    """The errors found so far; reading ends at `MAX_ISSUES` of them, since each takes time for its hint."""

    def append(self, issue: Issue, /) -> None:
        """Add an error.

        Raises:
            RecipeError: If there are too many.
        """
        super().append(issue)
        if len(self) >= MAX_ISSUES:
            raise RecipeError(self)


def _position(issue: Issue) -> tuple[bool, str, int, int, str]:
    mark = issue.mark
    if mark is None:
        return (True, "", 0, 0, dotted(issue.path))
    return (False, mark.file, mark.line, mark.column, dotted(issue.path))


def dotted(path: Sequence[Step]) -> str:
    """Format a path: `arms.small.init.filters.match`, `seeds[2]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            shown = step if _PLAIN_KEY.fullmatch(step) and len(step) <= _WIDEST else clipped(repr(step))
            parts.append(f".{shown}" if parts else shown)
    return "".join(parts)


def clipped(text: str, width: int = 60) -> str:
    """Cut a long text in the middle of a message."""
    return text if len(text) <= width else f"{text[: width - 2]} …"


def snippet(mark: FilePosition, note: str = "") -> list[str]:
    """Return the line of a position and a caret below its column, cut to a readable width."""
    text = "" if mark.text is None else mark.text
    column = min(mark.column, len(text) + 1)
    start = max(0, min(column - _WIDEST // 2, len(text) - _WIDEST))
    left, right = "… " if start > 0 else "", " …" if start + _WIDEST < len(text) else ""
    text = "".join(c if c.isprintable() else " " for c in text[start : start + _WIDEST])
    text = left + text + right
    column += len(left) - start
    caret = " " * sum(_cells(c) for c in text[: column - 1]) + "^"
    return [f"{mark.line:>6} | {text}", f"{'':>6} | {caret} {note}".rstrip()]


def _cells(character: str) -> int:
    """Return how many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
