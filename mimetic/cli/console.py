"""Shared by the verbs: common options, output to the terminal, files, error messages and exit codes."""

import csv
import functools
import io
import json
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

from mimetic.cli import completion
from mimetic.config.errors import RecipeError
from mimetic.config.registry import plugin_error
from mimetic.errors import UserError
from mimetic.files import json_value, write_text
from mimetic.printable import printable
from mimetic.tables import NONE, Table, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.covariance.network import Progress
    from mimetic.study.comparing.outcome import Comparison

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
ArmName = Annotated[
    str | None,
    typer.Option(
        "--arm", metavar="NAME", help="The arm; all arms by default.", autocompletion=completion.arms
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SOURCE:NAME",
        help="Another model, e.g. timm:convmixer_768_32.",
        autocompletion=completion.models,
    ),
]


def example(text: str) -> str:
    """Return the worked example at the end of a verb's help, with its lines unwrapped."""
    unwrapped = "\n\n".join(f"\b\n{paragraph}" for paragraph in text.split("\n\n"))
    return f"Example:\n\n{unwrapped}"


def print_json(value: object) -> None:
    """Print a value as JSON: UTF-8 where the output is, control characters escaped, null for NaN and ∞."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    plain = json_value(value, not_finite=lambda _: None)
    text = json.dumps(plain, indent=1, ensure_ascii=not is_utf8, allow_nan=False)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print("".join(shown), flush=True)


# Output


class LossyStream:
    """A stream that drops what cannot be written: a study outlives the terminal it was started in."""

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
    file = cast("IO[str]", LossyStream(stream)) if stderr else stream
    made = EscapingConsole(file=file, width=width, highlight=False, markup=False, emoji=False)
    made.on_broken_pipe = _raise_broken_pipe  # type: ignore[method-assign] # Rich would exit with 1: a failed run
    return made


def _raise_broken_pipe() -> None:
    raise BrokenPipeError


def print_table(out: "Console", table: Table) -> None:
    """Print a table, on a terminal without the optional columns that do not fit.

    If it is still too wide, each row is a block of lines, without empty cells.
    """
    table = table.without_empty()
    fitted = table.fitted(out.width) if out.is_terminal else table
    if out.is_terminal and fitted.width > out.width:
        for row in table.rows:
            _print_block(out, table.header, row)
        return
    for line in fitted.lines():
        out.print(line, soft_wrap=True)


def _print_block(out: "Console", header: Sequence[str], row: Sequence[str]) -> None:
    """Print a row as its first cell and, below it, the other columns with their names."""
    row = list(map(one_line, row))
    pairs = [f"{n} {c}".lstrip() for n, c in zip(header[1:], row[1:], strict=True) if c not in {"", NONE}]
    # Non-breaking blanks keep a name beside its value, unless they fill more than a line.
    text = ", ".join(p.replace(" ", "\xa0") if len(p) + 3 <= out.width else p for p in pairs)
    lines = textwrap.wrap(
        text,
        out.width,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print("\n".join((row[0], *lines)).replace("\xa0", " "), soft_wrap=True)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as comma-separated values; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def print_comparison(out: "Console", comparison: "Comparison") -> None:
    """Print the arms of a study side by side, without optional columns where a terminal has no room."""
    from mimetic.study.comparing.tables import table_of

    table = table_of(comparison)
    print_table(out, table)
    for note in table.notes:
        out.print(note)


def print_notes(out: "Console", pairs: Iterable[tuple[str, str]]) -> None:
    """Print each note once, with the first thing it is about and the number of others.

    `pairs` are things and their notes.
    """
    notes: dict[str, list[str]] = {}
    for thing, note in pairs:
        notes.setdefault(note, []).append(thing)
    for note, things in notes.items():
        more = f" and {len(things) - 1} more" if len(things) > 1 else ""
        print_wrapped(out, f"  {things[0]}{more}: {note}")


def print_item(out: "Console", name: str, text: str, *, width: int) -> None:
    """Print a name and its description, the description wrapped beside the name on a terminal."""
    head = f"  {name:<{width}} "
    print_wrapped(out, head + text, indent=len(head))


def print_wrapped(out: "Console", text: str, *, indent: int = 4) -> None:
    """Print a text, on a terminal in lines of its width between words; further lines are indented."""
    columns = out.width if out.is_terminal else sys.maxsize
    lines = textwrap.fill(
        printable(text),
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print(lines, soft_wrap=True)


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
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a traceback is no message to a user
            _exit(_unexpected(error), FAILED, error)
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


def _unexpected(error: BaseException) -> str:
    """Save the traceback of an unexpected error to a file, and return a message that names it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="mimetic-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())
    internal = (
        f"internal error: {type(error).__name__}{f': {text}' if text else ''} (please report) [MIM-X000]"
    )
    foreign = plugin_error(error)
    message = internal if foreign is None else error_text(foreign)
    return f"{message}\n    hint: the traceback is in {file.name} ({DEBUG}=1 shows it here)"
