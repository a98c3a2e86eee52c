"""`mimetic compare`: compare the arms of a study."""

import json
from typing import Annotated

import typer

from mimetic.cli.console import Root, console, echo, example, print_comparison
from mimetic.cli.inputs import StudyName, find_study
from mimetic.study.layout import DEFAULT_ROOT

EPILOG = example(
    """  $ mimetic compare quickstart
  arm                 n  test/acc [%]  vs default    95% interval  …
  default             3  96.76 ± 0.42           –               –  …
  closed-form         3  97.78 ± 1.00       +1.02  [−1.28, +3.32]  …
  closed-form-frozen  3  98.24 ± 0.64       +1.48  [−0.04, +3.00]  …
  2 comparisons with default: Holm-corrected, 5% family-wise error
  study mlruns/studies/quickstart/20261121-032523

  $ mimetic compare quickstart --metric test/loss --json"""
)


def compare(
    study: StudyName = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric to compare by; the study's by default."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="ARM", help="Arm to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Compare arms: mean ± std over seeds, paired differences to the baseline with corrected intervals."""
    from mimetic.study.comparing.comparison import of_study

    folder = find_study(study, root)
    comparison = of_study(folder, metric=metric, baseline=baseline)
    if as_json:
        echo(json.dumps(comparison.to_dict(), indent=1))
        return
    out = console()
    print_comparison(out, comparison)
    out.print(f"study {folder}", soft_wrap=True)
