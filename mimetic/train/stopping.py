"""Ending a trial from outside: a function that is asked, and the exception that leaves the loop."""

from collections.abc import Callable

Stop = Callable[[], str | None]
"""Returns why the trial should end now, or None; asked before each step, so it must be cheap."""


class Stopped(Exception):  # noqa: N818 (no error: somebody asked for it)
    """The trial was asked to end; says why."""


def never() -> None:
    """Return None: nobody asks the trial to end."""


def stop_if(reason: str | None) -> None:
    """Leave the loop if there is a reason to.

    Raises:
        Stopped: With the reason.
    """
    if reason is not None:
        raise Stopped(reason)
