"""What the verbs share: the console, and the options that several of them take."""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer

from mimetic.errors import UserError
from mimetic.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 140
"""Columns where the output is no terminal, so that a table in a file is not cut."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="Path of the recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, e.g. train.epochs=5; may be repeated."
    ),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Let a `type: python` model run its code.")]
Root = Annotated[Path, typer.Option("--root", metavar="FOLDER", help="Folder of the runs.")]
ArmName = Annotated[
    str | None, typer.Option("--arm", metavar="NAME", help="The arm; all of them unless given.")
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="SOURCE:NAME", help="Another model, e.g. timm:convmixer_768_32."),
]


class _Patient:
    """A stream whose reader may go away: what is written then is lost, and nothing stops for it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console(*, stderr: bool = False) -> "Console":
    """Return a console that does not cut tables where nobody looks at a terminal.

    Messages on stderr never stop what they tell of: a study outlives the terminal it was started in.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    file = cast("IO[str]", _Patient(stream)) if stderr else stream
    made = Console(file=file, width=width, highlight=False, markup=False)
    made.on_broken_pipe = _reader_gone  # type: ignore[method-assign] # Rich would exit with 1: a failed run
    return made


def _reader_gone() -> None:
    raise BrokenPipeError


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: `1 trial`, `9 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def check_places(*paths: Path | None) -> None:
    """Refuse places that cannot take a file before the work is done that would fill it.

    Raises:
        UserError: If one is a folder, or lies where nothing can be written.
    """
    for path in (path for path in paths if path is not None):
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file, e.g. {path / 'out'}{path.suffix}")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        try:
            with TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            said = f"{path} cannot be written ({nearest}: {error.strerror}); choose another place"
            raise UserError(said) from None


def write_file(path: Path, text: str) -> None:
    """Write a file the user asked for.

    Raises:
        UserError: If the place does not take it.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from None


def example(text: str) -> str:
    """Return the worked example that ends a verb's help; its lines are kept as they are."""
    kept = "\n\n".join(f"\b\n{paragraph}" for paragraph in text.split("\n\n"))
    return f"Example:\n\n{kept}"
