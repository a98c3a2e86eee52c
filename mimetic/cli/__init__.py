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
from mimetic.cli.console import example, guarded, prepare_streams
from mimetic.collector import end_quickly

VERBS = {
    run: "Train every arm on every seed and compare.",
    plan: "Show how every parameter is initialized.",
    validate: "Check recipes for mistakes.",
    explain: "Show why a parameter is initialized as it is.",
    diff: "Compare two plans.",
    ls: "List recipes, types and studies.",
    new: "Start a recipe from a shipped one.",
    schema: "Print the JSON Schema of recipes.",
    compare: "Compare the arms of a study.",
    harvest: "Measure a trained network's covariances.",
    ansatz: "Measure how far NFM ∝ AGOP holds in a network.",
    show: "Show what a covariance file holds.",
    similarity: "Compare two trained networks' layers.",
    sync: "Copy journals into the MLflow store.",
    ui: "Open the MLflow interface.",
}
"""Each verb's module, and its line in the overview. A verb is the module's function of the same name."""

app = typer.Typer(
    name="mimetic",
    help="Initialize networks with the structure that training would give them: recipes in YAML, "
    "resolved against any model, compared in MLflow.",
    epilog=example("""  $ mimetic new first.yaml
  $ mimetic plan first.yaml
  $ mimetic run first.yaml
  $ mimetic ui"""),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _module, _summary in VERBS.items():
    _verb = guarded(getattr(_module, _module.__name__.rpartition(".")[2]))
    app.command(epilog=_module.EPILOG, short_help=_summary)(_verb)


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
    prepare_streams()
    try:
        app(args=arguments, prog_name="mimetic")
    finally:
        end_quickly()
