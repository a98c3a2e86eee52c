"""The command line: one file per verb, which parses, calls the library and prints.

Exit codes: 0 ok, 1 a run failed, 2 the recipe or the request is wrong, 130 stopped by Ctrl-C.
"""

import typer

from mimetic.cli import (
    ansatz,
    compare,
    diff,
    explain,
    harvest,
    ls,
    new,
    plan,
    run,
    schema,
    show,
    similarity,
    sync,
    ui,
    validate,
)
from mimetic.cli.console import example, guarded
from mimetic.collector import end_quickly

VERBS = (
    run,
    plan,
    validate,
    explain,
    diff,
    ls,
    new,
    schema,
    compare,
    harvest,
    ansatz,
    show,
    similarity,
    sync,
    ui,
)

app = typer.Typer(
    name="mimetic",
    help="Initialize networks with the structure that training would give them: recipes in YAML, "
    "resolved against any model, compared in MLflow.",
    epilog=example("""  $ mimetic new first.yaml
  $ mimetic plan first.yaml
  $ mimetic run first.yaml
  $ mimetic ui"""),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for verb in VERBS:
    verb.register(app)
for _command in app.registered_commands:
    if _command.callback is not None:
        _command.callback = guarded(_command.callback)


def _version(requested: bool) -> None:
    if requested:
        from mimetic import __version__

        typer.echo(f"mimetic {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Parse the options before the verb."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; no failure ends in a traceback."""
    try:
        app(args=arguments, prog_name="mimetic")
    finally:
        end_quickly()
