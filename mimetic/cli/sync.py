"""`mimetic sync`: copy journals into the tracking store."""

from mimetic.cli.console import Json, Root, console, example, print_json
from mimetic.cli.inputs import StudyName, command_line, find_study, no_study
from mimetic.printable import pluralize
from mimetic.study.layout import DEFAULT_ROOT, studies

EPILOG = example(
    """  $ mimetic sync quickstart
  mlruns/studies/quickstart/20261121-032523: 9 trials, 9 FINISHED
  look     mimetic ui   then   http://127.0.0.1:5000/#/experiments/1/runs?…

  $ MLFLOW_TRACKING_URI=https://mlflow.example.org mimetic sync"""
)


def sync(study: StudyName = None, root: Root = DEFAULT_ROOT, as_json: Json = False) -> None:
    """Copy a study's journals into the MLflow store, or those of all studies below the root.

    For studies that ran with --offline, or whose store was unreachable. Only what is missing is sent.
    """
    folders = list(studies(root)) if study is None else [find_study(study, root)]
    if not folders:
        raise no_study(root)
    from mimetic.cli.display import TerminalDisplay
    from mimetic.study.sync import sync as mirror

    out, results = console(), []
    display = TerminalDisplay(console(stderr=True), metric="")  # for its messages only; nothing is trained
    for folder in folders:
        result = mirror(folder, root=root, display=display)
        results.append(result)
        if as_json:
            continue
        ended = list(result.statuses.values())
        statuses = ", ".join(f"{ended.count(status)} {status}" for status in sorted(set(ended)))
        out.print(f"{folder}: {pluralize(len(ended), 'trial')}, {statuses}", soft_wrap=True)
        out.print(f"look     {command_line('ui', root=root)}   then   {result.link}", soft_wrap=True)
    if as_json:
        print_json([result.to_dict() for result in results])
