"""What stands between a verb and the user: exit codes, and no traceback.

A user's mistake is printed as it is; a file or folder that does not work is named; a mistake of our own
becomes one sentence and a file to report.
"""

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import typer

from mimetic.errors import UserError

FAILED = 1
WRONG = 2
INTERRUPTED = 130

DEBUG = "MIMETIC_DEBUG"
"""Environment variable that lets tracebacks through, for those who develop mimetic."""

Verb = Callable[..., None]


def guarded(verb: Verb) -> Verb:
    """Return a verb that ends every failure with a message and an exit code."""

    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        try:
            verb(*args, **options)
            sys.stdout.flush()  # a pipe without a reader must be noticed here, not at exit
        except UserError as error:
            _end(str(error), error.exit_code, error)
        except BrokenPipeError:
            raise typer.Exit from None
        except KeyboardInterrupt:
            _end("interrupted", INTERRUPTED, None)
        except (typer.Exit, typer.Abort):
            raise
        except OSError as error:
            _end(_sentence(error), WRONG, error)
        except Exception as error:  # noqa: BLE001 - the last resort: a traceback is no message to a user
            _end(_our_mistake(error), FAILED, error)
        finally:
            _hush()

    return run


def _end(message: str, code: int, error: BaseException | None) -> None:
    if error is not None and os.environ.get(DEBUG):
        raise error
    try:
        typer.echo(message, err=True)
    except BrokenPipeError:
        _hush()
    raise typer.Exit(code) from None


def _hush() -> None:
    """Point an output without a reader nowhere (`mimetic ls | head`); Python would complain at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _sentence(error: OSError) -> str:
    """Return what the system said of a file, in one line."""
    said = error.strerror if error.strerror is not None else str(error)
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' → '.join(named)}: {said}" if named else f"the system refused: {said}"


def _our_mistake(error: Exception) -> str:
    """Keep the traceback in a file, and return one sentence that names it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="mimetic-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    said = " ".join(str(error).split())
    return (
        f"a mistake in mimetic itself: {type(error).__name__}{f': {said}' if said else ''}\n"
        f"    hint: please report it with the traceback in {file.name} ({DEBUG}=1 shows it here)"
    )
