"""Read recipe files and parse them as strict YAML, see `composer`."""

import re
from pathlib import Path
from typing import Any

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step
from mimetic.config.suggest import nearest
from mimetic.config.text.composer import Locate, compose
from mimetic.config.text.tree import Map
from mimetic.files import open_regular

MAX_BYTES = 1 << 20
"""Maximum size of a file, in bytes."""

_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def read(path: Path, *, name: str) -> str:
    """Return the text of a file.

    Raises:
        RecipeError: If it is missing, not a file, too large, or not UTF-8.
    """
    whole = FilePosition(name, 0, 0)
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = _near_file(path, name)
        raise RecipeError([Issue("there is no such file", (), whole, hint, code="MIM-C001")]) from None
    except IsADirectoryError:
        inside = ", ".join(sorted(f"`{p.name}`" for p in path.glob("*.y*ml"))[:5])
        hint = f"it contains {inside}" if inside else None
        issue = Issue("this is a folder, not a recipe", (), whole, hint, code="MIM-C002")
        raise RecipeError([issue]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError([Issue(f"cannot be read: {reason}", (), whole, code="MIM-C003")]) from None
    if len(content) > MAX_BYTES:
        raise RecipeError([_too_large(name)])
    return _decoded(content, name)


def _near_file(path: Path, name: str) -> str | None:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"}]
    except OSError:
        return f"there is no folder `{path.parent}` either"
    found = nearest(path.name, names)
    return None if found is None else f"did you mean `{Path(name).with_name(found)}`?"


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", errors="replace")
        rest = content[error.start :].split(b"\n")[0].decode("utf-8", errors="replace")
        lines = _BREAK.split(before)
        mark = FilePosition(name, len(lines), len(lines[-1]) + 1, lines[-1] + rest)
        message = f"the byte 0x{content[error.start]:02x} is not UTF-8"
        issue = Issue(message, (), mark, "save the file as UTF-8", code="MIM-C005")
        raise RecipeError([issue]) from None


def _too_large(name: str) -> Issue:
    whole = FilePosition(name, 0, 0)
    return Issue(f"a recipe is larger than {MAX_BYTES >> 20} MiB", (), whole, code="MIM-C004")


def parse(text: str, *, file: str, issues: list[Issue]) -> Map:
    """Parse a whole file, which must be one map.

    `issues` receives the errors that leave the rest readable.

    Raises:
        RecipeError: With `issues` and the error that ended parsing.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError([_too_large(file)])
    lines = _BREAK.split(text)

    def locate(line: int, column: int) -> FilePosition:
        if 0 < line == len(lines) - 1 and lines[line] == "":  # the end of the file: show its last line
            line, column = line - 1, len(lines[line - 1])
        return FilePosition(file, line + 1, column + 1, lines[line] if line < len(lines) else "")

    value, mark = parse_value(text, locate, issues)
    if isinstance(value, Map):
        return value
    hint = "start with `recipe: 1`"
    if mark is None:
        empty = FilePosition(file, 1, 1)
        raise RecipeError([*issues, Issue("the file is empty", (), empty, hint, code="MIM-C006")])
    message = "a recipe is a map of keys and values"
    raise RecipeError([*issues, Issue(message, (), mark, hint, code="MIM-C007")])


def parse_value(
    text: str, locate: Locate, issues: list[Issue], path: tuple[Step, ...] = ()
) -> tuple[Any, FilePosition | None]:
    """Parse one value of any form and return it with its position; (None, None) for an empty text.

    Raises:
        RecipeError: With `issues` and the error that ended parsing.
    """
    if (forbidden := _FORBIDDEN.search(text)) is not None:
        before = _BREAK.split(text[: forbidden.start()])
        mark = locate(len(before) - 1, len(before[-1]))
        message = f"the character U+{ord(forbidden[0]):04X} is not allowed in YAML"
        raise RecipeError([*issues, Issue(message, (), mark, "remove it", code="MIM-C008")])
    return compose(text, locate, issues, path)
