"""`mimetic compare`: compare the arms of one or several studies."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mimetic.cli import completion
from mimetic.cli.console import (
    Root,
    check_writable,
    console,
    echo,
    example,
    print_comparison,
    print_json,
    write_file,
)
from mimetic.cli.inputs import find_study
from mimetic.cli.options import expand
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.study.comparing.questions import Options

EPILOG = example(
    """  $ mimetic compare quickstart
  arm                 n  test/acc [%]  vs default    95% interval  …
  default             3  96.76 ± 0.42           –               –  …
  closed-form         3  97.78 ± 1.00       +1.02  [−1.28, +3.32]  …
  closed-form-frozen  3  98.24 ± 0.64       +1.48  [−0.04, +3.00]  …
  2 comparisons with default: Holm-corrected, 5% family-wise error
  study mlruns/studies/quickstart/20261121-032523

  $ mimetic compare quickstart --metric test/acc --metric test/loss --json
  $ mimetic compare quickstart --detect 1.0 --target 95 --to seconds"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """What is compared."""

    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME", help="Metric to compare by, the study's by default; may be repeated."
        ),
    ] = None
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="ARM", help="Arm to compare with.")
    ] = None
    best: Annotated[
        bool, typer.Option("--best", help="Compare the epoch that is best on validation data, not the last.")
    ] = False
    target: Annotated[
        float | None,
        typer.Option(
            "--target", metavar="VALUE", help="Also compare what it costs to reach this value of the metric."
        ),
    ] = None
    to: Annotated[
        str, typer.Option("--to", metavar="COST", help="Count that in epochs, steps or seconds.")
    ] = "epochs"
    detect: Annotated[
        float | None,
        typer.Option(
            "--detect", metavar="DIFFERENCE", help="Also show how many seeds would detect this difference."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """How it is printed."""

    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False
    md: Annotated[bool, typer.Option("--md", help="Print it as Markdown.")] = False
    csv: Annotated[bool, typer.Option("--csv", help="Print plain numbers as comma-separated values.")] = False
    latex: Annotated[bool, typer.Option("--latex", help="Print it as LaTeX.")] = False
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as one HTML page instead.")
    ] = None


@expand
def compare(
    options: CompareOptions,
    output: FormatOptions,
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Folder of a study; or a recipe or its name, for its latest study. Several are compared "
            "together, as several data sets.",
            show_default=False,
            autocompletion=completion.studies,
        ),
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Compare arms: mean ± std over seeds, paired differences to the baseline with corrected intervals."""
    from mimetic.study.comparing.comparison import of_studies
    from mimetic.study.comparing.results import read_results

    formats = [field.name for field in fields(output) if getattr(output, field.name)]
    if len(formats) > 1:
        raise UserError(f"--{formats[0]} and --{formats[1]}: choose one", code="MIM-X013")
    check_writable(output.html)
    chosen = _checked(options)
    folders = [find_study(study, root) for study in (studies if studies else [None])]
    comparisons = of_studies(folders, chosen)
    if output.html is not None:
        from mimetic.study.comparing.report import report

        write_file(output.html, report(comparisons, {folder: read_results(folder) for folder in folders}))
        echo(f"report {output.html}")
        return
    if output.json:
        found = [comparison.to_dict() for comparison in comparisons]
        print_json(found[0] if len(found) == 1 else found)
        return
    if formats:
        from mimetic.study.comparing.formats import FORMATS

        echo(FORMATS[formats[0]](comparisons), nl=False)
        return
    out = console()
    for comparison in comparisons:
        print_comparison(out, comparison)
    for folder in folders:
        out.print(f"study {folder}", soft_wrap=True)


def _checked(options: CompareOptions) -> "Options":
    """Return the options for the comparison.

    Raises:
        UserError: If one makes no sense.
    """
    from mimetic.study.comparing.questions import Cost, Options

    cost = next((cost for cost in get_args(Cost) if cost == options.to), None)
    if cost is None:
        raise UserError(f"--to: expected one of {', '.join(get_args(Cost))}", code="MIM-X014")
    if options.detect is not None and not 0.0 < options.detect < float("inf"):
        raise UserError("--detect: expected a difference above 0", code="MIM-X015")
    return Options(
        metrics=tuple(dict.fromkeys(options.metric or ())),
        baseline=options.baseline or "",
        epoch="best" if options.best else "last",
        target=options.target,
        to=cost,
        detect=options.detect,
    )
