"""Errors a user can repair. The command line prints them without a traceback."""


class UserError(Exception):
    """Report a mistake of the user's or of their machine: where, what, and the repair.

    Attributes:
        code: Stable identifier for tests and searches: `MIM-`, the room's letter and three digits.
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
