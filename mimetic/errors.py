"""Mistakes a user can mend. The command line prints them without a traceback."""


class UserError(Exception):
    """A mistake of the user's or of their machine: says where, what, and the repair.

    Attributes:
        exit_code: What the command line exits with: 2 where the recipe or the request is wrong,
            1 where a run failed.
    """

    exit_code = 2


class RunError(UserError):
    """Something failed while it ran: no fault of the recipe's text."""

    exit_code = 1
