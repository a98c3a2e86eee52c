"""One trial from start to end: data → model → plan → initial values → training → weights and pictures.

Everything is recorded in the trial's journal; the caller learns only how it ended, never by an exception.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mimetic.analysis.style import save_figure
from mimetic.config.address import ConfigPath
from mimetic.config.registry import plugin_error
from mimetic.errors import RunError, UserError
from mimetic.files import write_text
from mimetic.graph.names import canonical_parameters
from mimetic.journal import Journal, JournalError, NullJournal, history, read_journal
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.sources.collect import collect_inputs
from mimetic.sources.find import Consumer
from mimetic.study.layout import Trial, is_finished
from mimetic.study.locks import locked_trial
from mimetic.study.trials.cache import TrialCache
from mimetic.study.trials.learning import learn, start_fields
from mimetic.study.trials.observe import metrics_hook
from mimetic.study.trials.pictures import ansatz_pictures, filter_pictures
from mimetic.train.distributed import PEER_LOST, SINGLE_PROCESS, DistContext, is_peer_loss
from mimetic.train.freeze import digest
from mimetic.train.job import PROGRESS_SECONDS, Stop, TrainJob
from mimetic.train.loop import train


def run_trial(trial: Trial, cache: TrialCache, stop: Stop, context: DistContext = SINGLE_PROCESS) -> str:
    """Train one trial, or continue it from its checkpoint, and return how it ended.

    `stop` is called before each step and returns a reason to stop the trial. The processes of a context train
    it together; each calls this.

    Returns:
        FINISHED, FAILED or KILLED; the journal holds the reason.

    Raises:
        RunError: If a process of several failed alone: the others are freed only by its end.
    """
    if context.rank > 0:
        return _run_journaled(trial, cache, NullJournal(trial.journal), stop, context)
    several = context.world_size > 1
    try:
        trial.folder.mkdir(parents=True, exist_ok=True)
        with locked_trial(trial, stop) as locked:
            if not locked and several:
                raise RunError(  # noqa: TRY301 (the other ranks cannot go on without rank 0)
                    f"{trial.name} is being trained by another process; stop that one", code="MIM-Y101"
                )
            if not locked:
                return "KILLED"
            if is_finished(trial) and not several:  # by another process, while this one waited
                return "FINISHED"
            with Journal(trial.journal) as journal:
                return _run_journaled(trial, cache, journal, stop, context)
    except (RunError, OSError) as error:  # the journal itself cannot be written, e.g. on a full disk
        if several:
            raise
        sys.stderr.write(f"{trial.name}: {error}\n")
        return "FAILED"


def _run_journaled(
    trial: Trial, cache: TrialCache, journal: Journal, stop: Stop, context: DistContext
) -> str:
    """Train a trial, turn exceptions into its end event, and return its final status."""
    started = time.monotonic()
    several, failed_alone = context.world_size > 1, True  # whether only this rank failed
    reason: str | None
    try:
        status, reason = _prepare_and_train(trial, cache, journal, stop, context)
        failed_alone = False
    except JournalError as error:
        status, reason = "FAILED", str(error)
    except UserError as error:
        status, reason, failed_alone = "FAILED", str(error), False
    except torch.OutOfMemoryError as error:
        status, reason = "FAILED", f"out of memory; try a smaller `train.batch_size` ({error})"
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the other trials go on; the traceback is saved)
        peer_lost = several and is_peer_loss(error)
        status, reason = "FAILED", PEER_LOST if peer_lost else _save_traceback(trial, error, context.rank)
    try:
        seconds = round(time.monotonic() - started, 3)
        journal.write("end", status=status, reason=reason, seconds=seconds)
    finally:
        if failed_alone and several:
            raise RunError(f"{trial.name}: {reason}", code="MIM-Y102")
    return status


def _save_traceback(trial: Trial, error: BaseException, rank: int) -> str:
    """Write the traceback beside the journal, and return the reason of the failure."""
    path = trial.folder / (f"error-{rank}.txt" if rank else "error.txt")
    message = str(plugin_error(error) or f"{type(error).__name__}: {error}")
    try:
        write_text(path, traceback.format_exc())
    except OSError:
        return message
    return f"{message} (see {path})"


def _prepare_and_train(
    trial: Trial, cache: TrialCache, journal: Journal, stop: Stop, context: DistContext
) -> tuple[str, str | None]:
    """Initialize and train the trial's network; return its final status and the reason."""
    recipe = cache.recipe(trial.study)
    arm = recipe.arms[trial.arm]
    dataset = cache.dataset(arm)
    if trial.data not in {"", dataset.digest}:
        raise RunError(
            f"the data of {trial.name} changed since the study was planned: their digest was {trial.data} "
            f"and is now {dataset.digest}; restore them and continue with --resume, or start a new study",
            code="MIM-Y103",
        )
    if arm.learner is not None:  # on rank 0 alone: kernels are not distributed
        if context.rank > 0:
            return "FINISHED", None
        return learn(trial, arm, dataset, journal, stop)
    assert arm.model is not None
    assert arm.train is not None

    # network and plan
    at = ConfigPath(name=trial.arm)
    network = cache.network(arm, dataset, seed=trial.seed, at=at, allow_code=trial.allow_code)
    model = network.model
    consumer = Consumer(
        recipe=recipe, arm=arm, study=Path(trial.study), seed=trial.seed, allow_code=trial.allow_code
    )
    harvests = collect_inputs(consumer, dataset)
    plan = resolve(arm, network.graph, seed=trial.seed, at=at, harvests=harvests, rewrites=network.rewrites)

    # initial values
    written = plan.apply(model, progress=_progress_logger(journal))
    remarks = [f"{entry.parameter} {entry.remark}" for entry in written if entry.remark is not None]
    if remarks:
        journal.write("note", text="; ".join(remarks))
    # Filters of other seeds look alike, and drawing takes longer than everything else between two trials.
    draw_filters = trial.seed == recipe.seeds[0]
    if context.rank == 0:
        write_text(trial.folder / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
        _save_pictures(trial, plan, model, journal, moment="start", filters=draw_filters)

    # training
    parameters = canonical_parameters(model)
    job = TrainJob(
        model=model,
        dataset=dataset,
        spec=arm.train.model_copy(update={"device": trial.device}),
        seed=trial.seed,
        journal=journal,
        folder=trial.folder,
        plan_hash=plan.hash,
        augment=getattr(arm.data, "augment", ()),
        frozen={name: digest(parameters[name]) for name in plan.frozen_by_recipe},
        frozen_norm_layers=plan.frozen_bn_layers,
        metadata=start_fields(trial, epochs=arm.train.epochs),
        metrics_hook=metrics_hook(arm, model, network.graph, dataset, seed=trial.seed),
        profile=trial.profile,
    )
    outcome = train(job, stop=stop, context=context)
    if outcome.status == "FINISHED" and context.rank == 0:
        _save_pictures(trial, plan, model, journal, moment="end", filters=draw_filters)
    return outcome.status, outcome.reason


def _progress_logger(journal: Journal) -> Callable[[int, int], None]:
    """Return a callback that journals the progress of the initialization, about once a second."""
    last_log_time = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last_log_time
        if time.monotonic() - last_log_time >= PROGRESS_SECONDS:
            last_log_time = time.monotonic()
            journal.write("initialize", done=done, total=total)

    return progress


def _save_pictures(
    trial: Trial, plan: Plan, model: nn.Module, journal: Journal, *, moment: str, filters: bool
) -> None:
    """Draw filters and measured curves; a picture that cannot be drawn does not fail the trial."""
    pictures = dict(filter_pictures(plan, model, moment) if filters else {})
    if moment == "end":
        pictures.update(ansatz_pictures(history(read_journal(trial.journal))))
    for name, draw in pictures.items():
        file = f"pictures/{name}"
        try:
            save_figure(trial.folder / file, draw, dpi=100)
        except UserError as error:
            journal.write("note", text=str(error))
        else:
            journal.write("artifact", file=file, kind="picture")
