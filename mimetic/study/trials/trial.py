"""One trial from start to end: data → model → plan → apply → train → check → keep.

It says everything in its journal and returns only how it ended; no mistake leaves it as a traceback.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable

import torch
from torch import nn

from mimetic.config.address import ConfigPath
from mimetic.data.dataset import example_input
from mimetic.errors import RunError, UserError
from mimetic.files import write_text
from mimetic.graph.names import canonical_parameters
from mimetic.graph.sites import find_sites
from mimetic.journal import Journal, JournalError, NullJournal, history, read_journal
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.study.layout import Trial, is_finished
from mimetic.study.locks import holding_trial
from mimetic.study.trials.gathering import gather
from mimetic.study.trials.learning import learn
from mimetic.study.trials.observe import observer
from mimetic.study.trials.pictures import draw_ansatz, draw_pictures
from mimetic.study.trials.shelf import TrialCache
from mimetic.train.freeze import digest
from mimetic.train.loop import train
from mimetic.train.profiling import profiling
from mimetic.train.ranks import ALONE, LOST, Ranks, is_loss
from mimetic.train.stopping import Stop


def run_trial(trial: Trial, shelf: TrialCache, stop: Stop, ranks: Ranks = ALONE) -> str:
    """Train one trial, or continue it from its checkpoint, and return how it ended.

    Args:
        trial: The trial.
        shelf: What earlier trials of this process left.
        stop: Returns why training should stop, if it should; asked once a step.
        ranks: The processes that train it together; each calls this.

    Returns:
        FINISHED, FAILED or KILLED; the journal holds the reason.
    """
    if ranks.rank:
        return _journaled(trial, shelf, NullJournal(trial.journal), stop, ranks)
    try:
        trial.folder.mkdir(parents=True, exist_ok=True)
        with holding_trial(trial, stop) as held:
            if not held and ranks.size > 1:
                raise RunError(  # noqa: TRY301 - a team cannot go on without its first process
                    f"{trial.name} is being trained by another process; end that one"
                )
            if not held:
                return "KILLED"
            if is_finished(trial) and ranks.size == 1:  # by another process, while this one waited
                return "FINISHED"
            with Journal(trial.journal) as journal:
                return _journaled(trial, shelf, journal, stop, ranks)
    except (RunError, OSError) as error:  # not even the journal takes it, e.g. on a full disk
        if ranks.size > 1:
            raise
        sys.stderr.write(f"{trial.name}: {error}\n")
        return "FAILED"


def _journaled(
    trial: Trial, shelf: TrialCache, journal: Journal | NullJournal, stop: Stop, ranks: Ranks
) -> str:
    began, alone = time.monotonic(), True  # whether what failed did so on this process of a team alone
    try:
        ended, reason = _trained(trial, shelf, journal, stop, ranks)
        alone = False
    except JournalError as error:
        ended, reason = "FAILED", str(error)
    except UserError as error:
        ended, reason, alone = "FAILED", str(error), False
    except torch.OutOfMemoryError as error:
        ended, reason = "FAILED", f"out of memory; try a smaller `train.batch_size` ({error})"
    except Exception as error:  # noqa: BLE001 - the other trials go on; the trace is kept beside the journal
        ended, reason = "FAILED", LOST if ranks.size > 1 and is_loss(error) else _kept(trial, error, ranks)
    try:
        journal.write("end", status=ended, reason=reason, seconds=round(time.monotonic() - began, 3))
    finally:
        if alone and ranks.size > 1:  # the others wait for this one: only its end frees them
            raise RunError(f"{trial.name}: {reason}")
    return ended


def _kept(trial: Trial, error: Exception, ranks: Ranks) -> str:
    """Keep the trace of a mistake beside the journal, where there is room, and return the reason to tell."""
    path = trial.folder / (f"error-{ranks.rank}.txt" if ranks.rank else "error.txt")
    said = f"{type(error).__name__}: {error}"
    try:
        write_text(path, traceback.format_exc())
    except OSError:
        return said
    return f"{said} (see {path})"


def _trained(
    trial: Trial, shelf: TrialCache, journal: Journal | NullJournal, stop: Stop, ranks: Ranks
) -> tuple[str, str | None]:
    recipe = shelf.recipe(trial.study)
    arm = recipe.arms[trial.arm]
    dataset = shelf.dataset(arm)
    if arm.learner is not None:  # on the first process of a team: kernels are not shared
        return (
            learn(trial, arm, dataset, journal, stop) if isinstance(journal, Journal) else ("FINISHED", None)
        )
    assert arm.model is not None
    assert arm.train is not None
    at = ConfigPath(name=trial.arm)
    network = shelf.network(arm, dataset, seed=trial.seed, at=at, allow_code=trial.allow_code)
    model = network.model
    harvests = gather(trial, recipe, arm, dataset)
    graph = find_sites(model, example_input(dataset.shape))
    plan = resolve(arm, graph, seed=trial.seed, at=at, harvests=harvests, rewrites=network.rewrites)
    written = plan.apply(model, progress=_told(journal))
    remarks = [f"{m.parameter} {m.remark}" for m in written if m.remark is not None]
    if remarks:
        journal.write("note", text="; ".join(remarks))
    # The filters of other seeds look alike, and drawing takes longer than all else between two trials.
    first = trial.seed == recipe.seeds[0]
    if ranks.rank == 0:
        write_text(trial.folder / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
        _draw(trial, plan, model, journal, moment="start", filters=first)
    parameters = canonical_parameters(model)
    frozen = {name: digest(parameters[name]) for name in plan.frozen}
    per_epoch = len(dataset.train) // min(arm.train.batch_size, len(dataset.train))
    steps, on = per_epoch * arm.train.epochs, trial.profile and ranks.rank == 0
    with profiling(trial.folder, trial.device, steps=steps, on=on) as profiler:
        outcome = train(
            model,
            dataset,
            arm.train.model_copy(update={"device": trial.device}),
            seed=trial.seed,
            journal=journal,
            folder=trial.folder,
            plan_hash=plan.hash,
            augment=getattr(arm.data, "augment", ()),
            frozen=frozen,
            held=plan.frozen_bn_layers,
            facts={"arm": trial.arm},
            observe=observer(arm, model, graph, dataset, seed=trial.seed),
            resume=True,
            stop=stop,
            ranks=ranks,
            profiler=profiler,
        )
    if outcome.status == "FINISHED" and ranks.rank == 0:
        _draw(trial, plan, model, journal, moment="end", filters=first)
    return outcome.status, outcome.reason


def _told(journal: Journal | NullJournal) -> Callable[[int, int], None]:
    """Return what journals how far the initialization is, about once a second."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            journal.write("initialize", done=done, total=total)

    return progress


def _draw(
    trial: Trial, plan: Plan, model: nn.Module, journal: Journal | NullJournal, *, moment: str, filters: bool
) -> None:
    """Keep pictures of the filters and of what was measured; one that fails is no reason to lose a trial."""
    folder = trial.folder / "pictures"
    files = []
    try:
        if filters:
            files += draw_pictures(plan, canonical_parameters(model), folder, moment)
        if moment == "end":
            files += draw_ansatz(history(read_journal(trial.journal)), folder)
    except (RunError, OSError, ValueError) as error:
        journal.write("note", text=f"no pictures at the {moment}: {error}")
        return
    for file in files:
        journal.write("artifact", file=str(file.relative_to(trial.folder)), kind="picture")
