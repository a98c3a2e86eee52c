"""`mimetic sync`: copy journals into the tracking store."""

from pathlib import Path

import typer

from mimetic.cli.console import Root, console, counted, example
from mimetic.cli.studies import StudyName, find_study
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

EPILOG = example(
    """  $ mimetic sync quickstart
  mlruns/studies/quickstart/20261121-032523: 9 trials, 9 FINISHED
  look     mimetic ui   then   http://127.0.0.1:5000/#/experiments/1/runs?…

  $ MLFLOW_TRACKING_URI=https://mlflow.example.org mimetic sync"""
)


def sync(study: StudyName = None, root: Root = DEFAULT_ROOT) -> None:
    """Copy a study's journals into the MLflow store, all studies' below the root unless one is named.

    For studies that ran with --offline, or whose store was away. What the store has is not sent again.
    """
    folders = _every(root) if study is None else [find_study(study, root)]
    from mimetic.cli.display import Progress
    from mimetic.study.sync import sync as mirror

    out = console()
    display = Progress(console(stderr=True), metric="")  # its messages alone: there is nothing to wait for
    for folder in folders:
        result = mirror(folder, root=root, display=display)
        ended = list(result.statuses.values())
        told = ", ".join(f"{ended.count(status)} {status}" for status in sorted(set(ended)))
        out.print(f"{folder}: {counted(len(ended), 'trial')}, {told}", soft_wrap=True)
        out.print(f"look     mimetic ui   then   {result.link}", soft_wrap=True)


def _every(root: Path) -> list[Path]:
    from mimetic.study.layout import studies

    found = list(studies(root))
    if not found:
        raise UserError(f"there is no study below {root} yet; run one with `mimetic run RECIPE`")
    return found


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Copy journals into the MLflow store.")(sync)
