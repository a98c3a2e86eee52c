"""`mimetic run`: train every arm on every seed, and compare."""

from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import AllowCode, Overrides, RecipePath, Root, console, example
from mimetic.recipe import load

EPILOG = example(
    """  $ mimetic run recipes/quickstart.yaml --set train.epochs=3
  …
  arm          n  test/acc        vs default          95 % interval
  default      3  91.2 ± 0.6
  closed-form  3  95.0 ± 0.4      +3.8                [+2.1, +5.5]
  $ mimetic ui"""
)

FAILED = 1
INTERRUPTED = 130


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the latest study of this recipe.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no tracking server; journals only.")
    ] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    root: Root = Path("mlruns"),
    allow_code: AllowCode = False,
) -> None:
    """Train every arm on every seed, track all of it in MLflow, and compare the arms."""
    loaded = load(recipe, overrides=overrides if overrides is not None else ())
    from mimetic.cli.display import Progress
    from mimetic.cli.tables import comparison_table
    from mimetic.study import run as run_study

    out = console()
    with Progress(console(stderr=True)) as display:
        result = run_study(
            loaded,
            root=root,
            resume=resume,
            offline=offline,
            allow_code=allow_code,
            workers=workers,
            device=device,
            display=display,
        )
    out.print(comparison_table(result.comparison))
    out.print(f"study    {result.folder}")
    if result.link is not None:
        out.print(f"look     mimetic ui --root {root}   then   {result.link}", soft_wrap=True)
    if not result.complete:
        out.print(f"continue mimetic run {recipe} --resume", soft_wrap=True)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not result.complete:
        raise typer.Exit(FAILED)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="Train every arm on every seed and compare.")(run)
