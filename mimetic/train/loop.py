"""The training loop, top to bottom.

One trial: a model that holds its initial values, a data set, the training section of a recipe. Images stay
on the device as bytes and are augmented and decoded there; nothing is read back before an epoch ends; order,
augmentation and dropout are keyed by counters. So a step costs what its model costs, a killed trial
continues bit for bit on a CPU, and two arms of one seed see the same images in the same order.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic import streams
from mimetic.config.registry import Component
from mimetic.data.dataset import Dataset
from mimetic.errors import RunError
from mimetic.journal import Journal, JournalError, NullJournal, last_metrics, read_journal
from mimetic.train.batches import rows
from mimetic.train.begin import CHECKPOINT, WEIGHTS, find_state
from mimetic.train.checkpoint import remove_leftovers, save_checkpoint, save_weights
from mimetic.train.compiling import Compiled, CompileError, pick_compile
from mimetic.train.config import Train
from mimetic.train.devices import (
    autocast,
    keeping_global_streams,
    pick_device,
    pick_precision,
    seed_layers,
    set_arithmetic,
)
from mimetic.train.feed import Feed
from mimetic.train.figures import Observe, epoch_figures
from mimetic.train.freeze import check_frozen, hold_statistics
from mimetic.train.optimizers import make_optimizer, set_rate
from mimetic.train.outcome import Outcome, kept_at_a_stop, refuse_nonfinite
from mimetic.train.profiling import Profiler
from mimetic.train.ranks import ALONE, Ranks
from mimetic.train.schedules import rate
from mimetic.train.stopping import Stop, Stopped, never, stop_if

PROGRESS_SECONDS = 1.0

_NOTHING: Mapping[str, str] = MappingProxyType({})


@keeping_global_streams()
def train(  # noqa: C901, PLR0912, PLR0915 (one straight line; cutting it up would hide the order of things)
    model: nn.Module,
    dataset: Dataset,
    spec: Train,
    *,
    seed: int,
    journal: Journal | NullJournal,
    folder: Path,
    plan_hash: str,
    augment: Sequence[Component] = (),
    frozen: Mapping[str, str] = _NOTHING,
    held: Sequence[str] = (),
    facts: Mapping[str, object] = _NOTHING,
    resume: bool = False,
    stop: Stop = never,
    observe: Observe | None = None,
    ranks: Ranks = ALONE,
    profiler: Profiler | None = None,
) -> Outcome:
    """Train a model in place, and write its journal, checkpoints and final weights.

    The journal gets the start, each epoch (0 is the evaluation before training), progress at most once a
    second, checkpoints and the weights; its end is left to the caller. The state is kept every few epochs,
    every few minutes within one, and when the trial is stopped; it is removed once the trial has finished
    and its weights are kept.

    Args:
        model: The model with its initial values; frozen parameters require no gradient.
        dataset: The splits, with the statistics that normalize them.
        spec: The training section of the recipe.
        seed: Seed of order, augmentation, mixing and dropout.
        journal: The trial's journal.
        folder: The trial's folder.
        plan_hash: What the checkpoint is bound to; another one is refused.
        augment: Augmentations of training images, in order.
        frozen: Canonical name → `freeze.digest` of what must not change.
        held: Canonical names of norm layers whose statistics stay fixed.
        facts: What else the start event says, e.g. the arm.
        resume: Whether to continue from the checkpoint in the folder, where there is one.
        stop: Asked before each step; a reason ends the trial as KILLED, with its state kept.
        observe: Called once before training and after each epoch; its time counts as nobody's.
        ranks: The processes that train this model together; each calls this with the same arguments.
        profiler: Records a few steps.

    Returns:
        The outcome. A loss that is not finite, a frozen parameter that moved, a full disk and lack of
        device memory are FAILED with a reason, not exceptions.

    Raises:
        UserError: If the device is missing or the checkpoint belongs to another plan.
    """
    # ------------------------------------------------------------------ device and arithmetic
    device = pick_device(spec.device)
    precision = pick_precision(spec.precision, device)
    set_arithmetic(precision, device)

    # ------------------------------------------------------------------ data, resident as bytes
    feed = Feed(dataset, spec, augment=augment, device=device, channels_last=spec.channels_last)
    batch, steps_per_epoch, steps = feed.batch, feed.steps_per_epoch, feed.steps
    evaluate = feed.evaluator(precision, stop, ranks)
    ranks.check(batch, device)

    # ------------------------------------------------------------------ model and optimizer
    model.to(device)
    if spec.channels_last:
        model.to(memory_format=torch.channels_last)
    compiles, why = pick_compile(spec.compile, device, steps=steps)
    wrapped = ranks.wrapped(model)
    must = spec.compile is True or ranks.size > 1  # ranks may not differ
    fresh = Compiled(wrapped, must=must, journal=journal) if compiles else None  # until its first step
    forward = wrapped if fresh is None else fresh
    optimizer = make_optimizer(spec.optimizer, model.parameters())
    peak = optimizer.param_groups[0]["lr"]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------------ where to begin
    folder.mkdir(parents=True, exist_ok=True)
    with ranks.first_alone() as mine:
        if mine:
            remove_leftovers(folder)
    checkpoint, note = find_state(folder, plan_hash=plan_hash) if resume else (None, None)
    done, step = 0, 0  # epochs whose figures are known, steps trained
    sums = {name: torch.zeros((), device=device) for name in ("loss", "right")}  # of the epoch that runs
    spent = 0.0  # seconds trained of that epoch
    metrics: dict[str, float] = {}
    if checkpoint is not None:
        checkpoint.restore(model, optimizer)
        done, step, spent = checkpoint.epoch, checkpoint.step, checkpoint.spent
        sums |= {name: ranks.first(tensor.to(device)) for name, tensor in checkpoint.sums.items()}
        earlier = (e for e in read_journal(journal.path) if e["event"] != "epoch" or e["epoch"] <= done)
        metrics = last_metrics(earlier)
    kept, kept_at = step, time.perf_counter()
    patience = math.inf if spec.checkpoint.minutes is None else 60 * spec.checkpoint.minutes

    def keep() -> None:
        place = {"epoch": done, "step": step}
        whole = {name: ranks.total(value) for name, value in sums.items()}
        with ranks.first_alone() as mine:
            if mine:
                save_checkpoint(
                    folder / CHECKPOINT,
                    model,
                    optimizer,
                    plan_hash=plan_hash,
                    sums=whole,
                    spent=spent,
                    **place,
                )
                journal.write("checkpoint", **place)

    journal.write(
        "start",
        **{"seed": seed, "plan": plan_hash, **facts},
        device=str(device),
        threads=torch.get_num_threads(),
        precision=precision,
        torch=torch.__version__,
        resumed_from_epoch=None if checkpoint is None else done,
        resumed_from_step=None if checkpoint is None else step,
        compile=why,
        ranks=ranks.size,
        note=note,
    )

    try:
        # -------------------------------------------------------------- before training
        if checkpoint is None:
            metrics = evaluate(model)
            if observe is not None:
                metrics |= observe(model, 0)
            journal.write("epoch", epoch=0, step=0, metrics=metrics)

        for epoch in range(done + 1, spec.epochs + 1):
            # ---------------------------------------------------------- one epoch of steps
            started = time.perf_counter()
            model.train()
            hold_statistics(model, held)
            order_N = feed.order(seed=seed, epoch=epoch)
            told = started

            for number in range(step - done * steps_per_epoch, steps_per_epoch):
                now = time.perf_counter()
                reason, due = ranks.agreed(stop(), due=step > kept and now - kept_at >= patience)
                stop_if(reason)
                if due:
                    spent, started = spent + now - started, now
                    keep()
                    kept, kept_at = step, time.perf_counter()

                # what the step sees
                inputs, targets, answers = map(ranks.share, feed.step(order_N, step, seed=seed))

                # forward, backward, update
                seed_layers(streams.key(seed, "step", step, *ranks.key), device)
                with autocast(precision, device):
                    logits = forward(inputs)
                logits, targets = rows(logits, targets)
                loss = F.cross_entropy(logits.float(), targets, label_smoothing=spec.label_smoothing)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if spec.clip_norm is not None:
                    nn.utils.clip_grad_norm_(trained, spec.clip_norm)
                set_rate(optimizer, peak * rate(spec.schedule, step=step, steps=steps))
                optimizer.step()
                step += 1

                # what is remembered of the step: on the device, read once per epoch
                sums["loss"] += loss.detach()
                sums["right"] += (logits.detach().argmax(1) == answers.flatten()).sum()

                # what is told by the clock
                now = time.perf_counter()
                if fresh is not None:
                    fresh.tell(now - started)
                    fresh = None
                if now - told >= PROGRESS_SECONDS:
                    pace = (number + 1) * batch / (spent + now - started)
                    journal.write("progress", epoch=epoch, step=step, steps=steps, images_per_second=pace)
                    told = now
                if profiler is not None:
                    profiler.step()

            # ---------------------------------------------------------- the epoch's figures
            whole = {name: ranks.total(value).item() for name, value in sums.items()}  # waits for the device
            spent += time.perf_counter() - started
            found = epoch_figures(
                model,
                epoch,
                spec=spec,
                loss=whole["loss"] / (steps_per_epoch * ranks.size),
                accuracy=whole["right"] / feed.examples.num_targets(order_N),
                lr=peak * rate(spec.schedule, step=step - 1, steps=steps),
                images=steps_per_epoch * batch,
                seconds=spent,
                evaluate=evaluate,
                observe=observe,
            )
            metrics |= found
            journal.write("epoch", epoch=epoch, step=step, metrics=found)
            refuse_nonfinite(found, epoch=epoch)
            done, spent = epoch, 0.0
            for total in sums.values():
                total.zero_()

            # ---------------------------------------------------------- the epoch's state
            if epoch % spec.checkpoint.every == 0 or epoch == spec.epochs:
                keep()
                kept, kept_at = step, time.perf_counter()

        # -------------------------------------------------------------- after training
        check_frozen(model, frozen)
        if spec.checkpoint.keep_weights:
            with ranks.first_alone() as mine:
                if mine:
                    save_weights(folder / WEIGHTS, model, epoch=spec.epochs, step=steps, plan_hash=plan_hash)
                    journal.write("artifact", file=WEIGHTS, kind="weights")
                    (folder / CHECKPOINT).unlink(missing_ok=True)
    except Stopped as stopped:
        return Outcome("KILLED", metrics, str(stopped) + (kept_at_a_stop(keep) if step > kept else ""))
    except torch.OutOfMemoryError:
        if ranks.size > 1:
            raise  # the others wait for this one: only the end of the process frees them
        return Outcome("FAILED", metrics, f"out of memory on {device}: a smaller train.batch_size needs less")
    except RunError as error:
        if ranks.size > 1 and isinstance(error, JournalError | CompileError):
            raise  # one rank's alone, as above
        return Outcome("FAILED", metrics, str(error))
    return Outcome("FINISHED", metrics)
