"""Strict YAML: text in, a tree that knows its places out.

PyYAML's safe loader splits the text into events; what they mean is decided here, so that a recipe
reads the same everywhere: no duplicate keys, no tags, no merge keys, text keys only, anchors bounded,
and scalars as in `scalars`. Mistakes that leave the rest readable are collected; the first error of
syntax ends the reading.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step
from mimetic.config.suggest import nearest
from mimetic.config.text.builder import Builder, Locate
from mimetic.config.text.syntax import explain_syntax
from mimetic.config.text.tree import Map

MAX_BYTES = 1 << 20
"""Largest file, in bytes."""

_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def read(path: Path, *, name: str) -> str:
    """Return the text of a file.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        RecipeError: If it is missing, no file, too large, or not UTF-8.
    """
    whole = FilePosition(name, 0, 0)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError([Issue("there is no such file", (), whole, _near_file(path, name))]) from None
    except IsADirectoryError:
        inside = ", ".join(sorted(f"`{p.name}`" for p in path.glob("*.y*ml"))[:5])
        hint = f"it holds {inside}" if inside else None
        raise RecipeError([Issue("this is a folder, not a recipe", (), whole, hint)]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None)
        raise RecipeError(
            [Issue(f"cannot be read: {error if reason is None else reason}", (), whole)]
        ) from None
    if len(content) > MAX_BYTES:
        raise RecipeError([Issue(f"the file is larger than {MAX_BYTES >> 20} MiB", (), whole)])
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
        raise RecipeError([Issue(message, (), mark, "save the file as UTF-8")]) from None


def parse(text: str, *, file: str, issues: list[Issue]) -> Map:
    """Parse a whole file, which must hold one map.

    Args:
        text: Content of the file.
        file: What messages call it.
        issues: Receives the mistakes that leave the rest readable.

    Raises:
        RecipeError: With `issues` and the error of syntax that ended the reading.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(
            [Issue(f"the text is larger than {MAX_BYTES >> 20} MiB", (), FilePosition(file, 0, 0))]
        )
    lines = _BREAK.split(text)

    def locate(line: int, column: int) -> FilePosition:
        return FilePosition(file, line + 1, column + 1, lines[line] if line < len(lines) else "")

    value, mark = parse_value(text, locate, issues)
    if isinstance(value, Map):
        return value
    if mark is None:
        message, mark = "the file is empty", FilePosition(file, 1, 1)
    else:
        message = "a recipe is a map of keys and values"
    raise RecipeError([*issues, Issue(message, (), mark, "begin with `recipe: 1`")])


def parse_value(
    text: str, locate: Locate, issues: list[Issue], path: tuple[Step, ...] = ()
) -> tuple[Any, FilePosition | None]:
    """Parse one value of any form and return it with its mark; (None, None) for an empty text.

    Raises:
        RecipeError: With `issues` and the error of syntax that ended the reading.
    """
    if (odd := _FORBIDDEN.search(text)) is not None:
        before = _BREAK.split(text[: odd.start()])
        mark = locate(len(before) - 1, len(before[-1]))
        message = f"the character U+{ord(odd[0]):04X} is not allowed in YAML"
        raise RecipeError([*issues, Issue(message, (), mark, "remove it")])
    loader = yaml.SafeLoader(text)
    try:
        return Builder(loader, locate, issues).document(path)
    except yaml.MarkedYAMLError as error:
        raise RecipeError([*issues, explain_syntax(error, locate, text)]) from None
    except yaml.YAMLError as error:
        place = loader.get_mark()
        raise RecipeError(
            [*issues, Issue(f"this is not YAML: {error}", (), locate(place.line, place.column))]
        ) from None
    except (ValueError, OverflowError):  # PyYAML makes a character of "\U00110000" without a look
        place = loader.get_mark()
        issue = Issue("this escape stands for no character", (), locate(place.line, place.column))
        raise RecipeError([*issues, issue]) from None
    finally:
        loader.dispose()
