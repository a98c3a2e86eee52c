"""`mimetic run`: train every arm on every seed, and compare."""

import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import (
    FAILED,
    INTERRUPTED,
    AllowCode,
    Json,
    Overrides,
    RecipePath,
    Root,
    console,
    example,
    print_comparison,
    print_json,
)
from mimetic.cli.inputs import command_line, load_recipe
from mimetic.errors import UserError
from mimetic.signals import signal_handlers
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.study.conclusion import StudyResult

EPILOG = example(
    """  $ mimetic run recipes/quickstart.yaml
  …/mlruns/studies/quickstart/20261121-032523: 9 trials to run
  [1/9] default · seed 0: FINISHED in 9 s, test/acc 96.67%
  …
  arm                 n  test/acc [%]  vs default    95% interval  …
  default             3  96.76 ± 0.42           –               –  …
  closed-form         3  97.78 ± 1.00       +1.02  [−1.28, +3.32]  …
  closed-form-frozen  3  98.24 ± 0.64       +1.48  [−0.04, +3.00]  …
  2 comparisons with default: Holm-corrected, 5% family-wise error
  study    …/mlruns/studies/quickstart/20261121-032523
  look     mimetic ui   then   http://127.0.0.1:5000/#/experiments/1/runs?…

  $ mimetic run recipes/quickstart.yaml --set train.epochs=8 --set seeds=5"""
)


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the latest study of this recipe; arms, seeds and epochs may be added."
        ),
    ] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take what any study below the root has trained already.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no tracking server; journals only.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Worker processes; one per core or GPU unless given."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Ray cluster, for `study: {executor: ray}`."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of the first trial's steps goes.")
    ] = False,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Train every arm on every seed, track all of it in MLflow, and compare the arms."""
    loaded = load_recipe(recipe, overrides)
    _check_root(root)
    from mimetic.cli.display import TerminalDisplay
    from mimetic.study.executors.ranks import is_worker_rank, launcher, world_size

    if is_worker_rank():
        from mimetic.study.executors.torchrun import worker_loop

        worker_loop()
        return

    # SIGHUP is that of a closed terminal.
    on_signals = signal_handlers(signal.SIGTERM, signal.SIGHUP, handler=_interrupt)
    with on_signals, TerminalDisplay(console(stderr=True), metric=loaded.study.metric) as display:
        result = None
        if resume and world_size() <= 1:
            from mimetic.study.complete import complete_result

            result = complete_result(loaded, root, offline=offline, display=display)
        if result is None:
            from mimetic.study.executors.torchrun import rank0_context
            from mimetic.study.study import run as run_study

            with rank0_context():
                result = run_study(
                    loaded,
                    root=root,
                    resume=resume,
                    reuse=reuse,
                    offline=offline,
                    allow_code=allow_code,
                    workers=workers,
                    device=device,
                    display=display,
                    address=address,
                    profile=profile,
                )

    # print the result, and how to continue
    out = console()
    if as_json:
        print_json(result.to_dict())
    else:
        if profile:
            _print_profiles(out, result.folder)
        _print_result(out, result, root)
    if not result.complete and not as_json:
        options = {"--workers": workers, "--device": device, "--address": address}
        flags = {"--reuse": reuse, "--offline": offline, "--allow-code": allow_code}
        words = [word for text in overrides or () for word in ("--set", text)]
        words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
        words += [name for name, on in flags.items() if on]
        again = command_line("run", str(recipe), *words, root=root)
        out.print(f"continue {launcher()}{again} --resume", soft_wrap=True)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not result.complete:
        raise typer.Exit(FAILED)


def _print_result(out: "Console", result: "StudyResult", root: Path) -> None:
    """Print the comparison, and where the study is."""
    print_comparison(out, result.comparison)
    out.print(f"study    {result.folder}", soft_wrap=True)
    if result.link is not None:
        out.print(f"look     {command_line('ui', root=root)}   then   {result.link}", soft_wrap=True)


def _print_profiles(out: "Console", folder: Path) -> None:
    """Print the summaries of the profiled steps, and where their traces are."""
    from mimetic.train.profiling import SUMMARY, TRACE

    summaries = sorted(folder.rglob(SUMMARY))
    if not summaries:
        out.print("profile  nothing was recorded: profiling needs at least two steps")
    for summary in summaries:
        out.print(summary.read_text(encoding="utf-8"), soft_wrap=True)
        out.print(f"trace    {summary.with_name(TRACE)}", soft_wrap=True)


def _check_root(root: Path) -> None:
    """Refuse a folder for the runs that cannot be written to, before anything is computed."""
    if not str(root).isprintable():
        raise UserError(
            f"--root: {str(root)!r} has characters that URIs and logs cannot have; choose another folder",
            code="MIM-X051",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"{root}: runs cannot be written there ({error.strerror}); choose another folder with --root",
            code="MIM-X050",
        ) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the study as Ctrl-C does: its trials end as KILLED."""
    raise KeyboardInterrupt
