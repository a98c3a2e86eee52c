"""What makes verbs in this process quick."""

from functools import cache

import typer.testing


def build_commands_once() -> None:
    """Let `CliRunner` build the commands of an application once, which takes longer than most verbs."""
    typer.testing._get_command = cache(typer.testing._get_command)
