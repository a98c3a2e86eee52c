"""A bar for what takes its time: images gone through, layers measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mimetic.cli.console import console

if TYPE_CHECKING:
    from mimetic.covariance.network import Progress


@contextmanager
def progress(what: str) -> "Iterator[Progress]":
    """Draw a bar on a terminal; on a pipe, nothing."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=shown, transient=True, auto_refresh=False, disable=not shown.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            bars.refresh()

        yield tell
