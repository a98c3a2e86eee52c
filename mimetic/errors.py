"""Errors a user can repair. The command line prints them without a traceback."""


class UserError(Exception):
    """Report a mistake of the user's or of their machine: where, what, and the repair.

    Args:
        message: One sentence for people; it may change at any time.
        code: Stable identifier, `MIM-` and a letter for the room and three digits, e.g. `MIM-P012`.

    Attributes:
        code: The identifier, for tests, documentation and searches.
        exit_code: What the command line exits with: 2 where the recipe or the request is wrong,
            1 where a run failed.
    """

    exit_code = 2

    def __init__(self, message: object = "", *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class RunError(UserError):
    """Report something that failed while it ran and is no fault of the recipe's text."""

    exit_code = 1
