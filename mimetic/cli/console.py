"""Shared by the verbs: common options, output to the terminal, files, error messages and exit codes."""

import csv
import functools
import io
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.files import write_text
from mimetic.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mimetic.covariance.network import Progress
    from mimetic.study.comparing.comparison import Comparison

FAILED = 1
WRONG = 2
INTERRUPTED = 130

DEBUG = "MIMETIC_DEBUG"
"""Environment variable that lets tracebacks through, for developers of mimetic."""

PIPE_WIDTH = 140
"""Columns where the output is not a terminal."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="Path of the recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, e.g. train.epochs=5; may be repeated."
    ),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Let a `type: python` model run its code.")]
Root = Annotated[Path, typer.Option("--root", metavar="FOLDER", help="Folder of the runs.")]
ArmName = Annotated[str | None, typer.Option("--arm", metavar="NAME", help="The arm; all arms by default.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="SOURCE:NAME", help="Another model, e.g. timm:convmixer_768_32."),
]


def example(text: str) -> str:
    """Return the worked example at the end of a verb's help, with its lines unwrapped."""
    unwrapped = "\n\n".join(f"\b\n{paragraph}" for paragraph in text.split("\n\n"))
    return f"Example:\n\n{unwrapped}"


def pluralize(number: int, thing: str) -> str:
    """Return a number with its noun: `1 trial`, `9 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


# Output


class RetryingStream:
    """A stream that ignores failed writes, so that a study outlives the terminal it was started in."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Open streams that the parent closed, and let none fail on a character it cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the file opened next gets the number of the closed one
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper) and output.errors == "strict":
            output.reconfigure(errors="backslashreplace")


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text, its control characters escaped."""
    print(printable(text), end="\n" if nl else "", file=sys.stderr if err else sys.stdout, flush=True)


def console(*, stderr: bool = False) -> "Console":
    """Return a console for stdout or stderr; control characters are escaped, writes to stderr never fail."""
    from mimetic.cli.terminal import EscapingConsole

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    file = cast("IO[str]", RetryingStream(stream)) if stderr else stream
    made = EscapingConsole(file=file, width=width, highlight=False, markup=False, emoji=False)
    made.on_broken_pipe = _raise_broken_pipe  # type: ignore[method-assign] # Rich would exit with 1: a failed run
    return made


def _raise_broken_pipe() -> None:
    raise BrokenPipeError


def print_table(
    out: "Console", header: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False
) -> None:
    """Print rows as a table where it fits the terminal, else one block of lines per row.

    Empty cells are left out of blocks. With `right`, all columns but the first are aligned to the right.
    """
    rows = [[printable(cell).replace("\n", r"\n") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if out.is_terminal and sum(widths) + 2 * (len(widths) - 1) > out.width:
        for row in rows:
            _print_block(out, header, row)
        return
    rule = ["─" * width for width in widths]
    for row in (header, rule, *rows):
        cells = [
            cell.rjust(width) if right and index > 0 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.print("  ".join(cells).rstrip(), soft_wrap=True)


def _print_block(out: "Console", header: Sequence[str], row: Sequence[str]) -> None:
    """Print a row as its first cell and, below it, the other columns with their names."""
    pairs = [f"{n} {c}".lstrip() for n, c in zip(header[1:], row[1:], strict=True) if c not in {"", "–"}]
    # Non-breaking blanks keep a name beside its value.
    text = ", ".join(pair.replace(" ", "\xa0") for pair in pairs)
    lines = textwrap.wrap(
        text,
        out.width,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print("\n".join((row[0], *lines)).replace("\xa0", " "), soft_wrap=True)


def new_table(left: Sequence[str], right: Sequence[str]) -> "Table":
    """Return a table without rows: columns of text, folded where they are long, then columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right")
    return table


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as comma-separated values; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def print_comparison(out: "Console", comparison: "Comparison") -> None:
    """Print the arms of a study side by side, without optional columns where a terminal has no room."""
    from mimetic.study.comparing.tables import table_of

    table = table_of(comparison)
    fitted = table.fitted(out.width) if out.is_terminal else table
    print_table(out, fitted.header, fitted.rows, right=True)
    for note in table.notes:
        out.print(note)


def print_item(out: "Console", name: str, text: str, *, width: int) -> None:
    """Print a name and its description, the description wrapped beside the name on a terminal."""
    head = f"  {name:<{width}} "
    columns = out.width if out.is_terminal else sys.maxsize
    out.print(textwrap.fill(head + text, columns, subsequent_indent=" " * len(head)), soft_wrap=True)


@contextmanager
def progress(what: str) -> "Iterator[Progress]":
    """Show a progress bar on a terminal, nothing on a pipe; yields `update(done, total)`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=out, transient=True, auto_refresh=False, disable=not out.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None)

        def update(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            bars.refresh()

        yield update


# Files


def check_writable(*paths: Path | None) -> None:
    """Refuse output files that cannot be written, before the work is done.

    Raises:
        UserError: If one is a folder, or is in a folder that cannot be written to.
    """
    for path in (path for path in paths if path is not None):
        if path.is_dir():
            raise UserError(
                f"{path} is a folder; give the name of a file, e.g. {path / 'out'}{path.suffix}",
                code="MIM-X002",
            )
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({nearest}: {error.strerror}); choose another place",
                code="MIM-X003",
            ) from None


def write_file(path: Path, text: str) -> None:
    """Write an output file.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another place", code="MIM-X004"
        ) from None


# Errors


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose failures end in a message and an exit code, never in a traceback."""

    @functools.wraps(verb)
    def run(*args: object, **options: object) -> None:
        try:
            verb(*args, **options)
            sys.stdout.flush()  # notice a pipe without a reader here, not at exit
        except UserError as error:
            _exit(error_text(error), error.exit_code, error)
        except BrokenPipeError:
            raise typer.Exit from None
        except KeyboardInterrupt:
            _exit("interrupted", INTERRUPTED, None)
        except (typer.Exit, typer.Abort):
            raise
        except OSError as error:
            _exit(_system_error(error), WRONG, error)
        except Exception as error:  # noqa: BLE001 - the last resort: a traceback is no message to a user
            _exit(_internal_error(error), FAILED, error)
        finally:
            _silence_stdout()

    return run


def error_text(error: UserError) -> str:
    """Return an error's message, with its code at the end of the first line."""
    if isinstance(error, RecipeError) or not error.code:
        return str(error)  # each issue of a recipe has its own code
    first, *rest = str(error).split("\n")
    return "\n".join([f"{first} [{error.code}]", *rest])


def _exit(message: str, code: int, error: BaseException | None) -> None:
    if error is not None and os.environ.get(DEBUG):
        raise error
    try:
        echo(message, err=True)
    except BrokenPipeError:
        _silence_stdout()
    raise typer.Exit(code) from None


def _silence_stdout() -> None:
    """Redirect an output without a reader (`mimetic ls | head`), or Python would complain at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _system_error(error: OSError) -> str:
    """Return an error of the operating system in one line, with the files it names."""
    text = error.strerror if error.strerror is not None else str(error)
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' → '.join(named) if named else 'system error'}: {text} [MIM-X001]"


def _internal_error(error: Exception) -> str:
    """Save the traceback to a file, and return a message that names it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="mimetic-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())
    return (
        f"internal error: {type(error).__name__}{f': {text}' if text else ''} (please report) [MIM-X000]\n"
        f"    hint: the traceback is in {file.name} ({DEBUG}=1 shows it here)"
    )
