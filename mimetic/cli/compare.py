"""`mimetic compare`: the arms of a study side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import Root, console, example
from mimetic.errors import UserError

EPILOG = example(
    """  $ mimetic compare quickstart
  arm          n  test/acc        vs default          95 % interval
  default      3  91.2 ± 0.6
  closed-form  3  95.0 ± 0.4      +3.8                [+2.1, +5.5]

  $ mimetic compare mlruns/studies/quickstart/20261121-021500 --metric test/loss"""
)


def compare(
    study: Annotated[
        str | None, typer.Argument(help="Folder of a study, or name of a recipe (its latest study).")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="The study's own unless given.")] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="Arm to compare with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    root: Root = Path("mlruns"),
) -> None:
    """Compare arms: mean ± std over seeds, paired difference to the baseline with its 95 % interval."""
    from mimetic.cli.tables import comparison_table
    from mimetic.study.comparison import of_study

    folder = _find(study, root)
    made = of_study(folder, metric=metric, baseline=baseline)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=1))
        return
    out = console()
    out.print(comparison_table(made))
    out.print(f"study {folder}")


def _find(study: str | None, root: Path) -> Path:
    from mimetic.study.layout import studies

    if study is not None and Path(study).is_dir():
        return Path(study)
    found = list(studies(root, study))
    if not found:
        names = sorted({folder.parent.name for folder in studies(root)})
        there = f"there are {', '.join(names)}" if names else "there are none yet: run one with `mimetic run`"
        what = f"no study of `{study}`" if study is not None else "no study"
        raise UserError(f"{what} below {root}; {there}")
    return found[-1]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Compare the arms of a study.")(compare)
