"""`mimetic ui`: serve MLflow's interface for the runs, with one worker and no job runner."""

import os
from typing import Annotated

import typer

from mimetic.cli.console import Root, console, example
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

EPILOG = example(
    """  $ mimetic ui
  MLflow on sqlite:///…/mlruns/mlflow.db
  quickstart: http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=…
  Ctrl-C ends it"""
)


def ui(
    root: Root = DEFAULT_ROOT,
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=1, max=65535, help="First port to try.")
    ] = 5000,
) -> None:
    """Open MLflow's interface on the runs: two processes and half a gigabyte instead of fifteen and three."""
    if not root.is_dir() and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(f"there are no runs below {root}; `mimetic run RECIPE` creates some", code="MIM-X070")
    from mimetic.tracking.ui import prepare

    server = prepare(root, port=port)
    out = console()
    out.print(f"MLflow on {server.store}")
    for name, link in server.links.items():
        out.print(f"{name}: {link}", soft_wrap=True)
    out.print("Ctrl-C ends it")
    os.execvpe(server.command[0], list(server.command), dict(server.environment))  # noqa: S606 - our own interpreter
