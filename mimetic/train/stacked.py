"""Several networks of one architecture trained as one: each layer computes all of them at once. Experimental.

The optimizer, elementwise, acts on the stacked tensors of `train.stack`. Each network's own parameters are
views of them, so evaluation, measurements, weights and checkpoints are those of a network by itself, and
a checkpoint goes on without a stack. Every network has its own order, augmentation and mixing, keyed as in
`train.loop`; sums of losses keep gradients apart, so one that diverges harms no other.

This pays where launching kernels costs more than what they compute. What cannot be stacked is told by
`train.stack.reason_against`.
"""

import time
from collections.abc import Sequence

import torch

from mimetic.errors import RunError
from mimetic.train.begin import CHECKPOINT, WEIGHTS
from mimetic.train.checkpoint import remove_leftovers, save_checkpoint, save_weights
from mimetic.train.devices import (
    autocast,
    keeping_global_streams,
    pick_device,
    pick_precision,
    set_arithmetic,
)
from mimetic.train.feed import Feed
from mimetic.train.figures import epoch_figures
from mimetic.train.freeze import check_frozen, hold_statistics
from mimetic.train.loop import PROGRESS_SECONDS
from mimetic.train.optimizers import make_optimizer, set_rate
from mimetic.train.outcome import Outcome, kept_at_a_stop, refuse_nonfinite
from mimetic.train.schedules import rate
from mimetic.train.stack import Share, Stack
from mimetic.train.stopping import Stop, Stopped, stop_if
from mimetic.train.work import Work


@keeping_global_streams()
def train_stacked(works: Sequence[Work], stop: Stop) -> list[Outcome]:  # noqa: C901, PLR0912, PLR0915 (one line)
    """Train several networks as one, each with its own journal, checkpoints and weights.

    Args:
        works: What `reason_against` found nothing against.
        stop: Asked before each step; a reason ends all as KILLED, with their state kept.

    Returns:
        An outcome for each. A network whose loss is not finite is FAILED; the others go on.
    """
    spec, size = works[0].spec, len(works)
    device = pick_device(spec.device)
    precision = pick_precision(spec.precision, device)
    set_arithmetic(precision, device)

    # ------------------------------------------------------------------ data, networks, optimizer
    augment = works[0].augment
    feed = Feed(works[0].dataset, spec, augment=augment, device=device, channels_last=False)  # as vmap has it
    batch, steps_per_epoch, steps = feed.batch, feed.steps_per_epoch, feed.steps
    evaluate = feed.evaluator(precision, stop)
    for work in works:
        work.model.to(device)
    stack = Stack([work.model for work in works])
    optimizer = make_optimizer(spec.optimizer, stack.parameters.values(), stacked=True)
    peak = optimizer.param_groups[0]["lr"]
    done, step = 0, 0
    sums = {name: torch.zeros(size, device=device) for name in ("loss", "right")}
    spent = 0.0
    metrics: list[dict[str, float]] = [{} for _ in works]
    ended: dict[int, Outcome] = {}

    def keep(row: int) -> None:
        work, place = works[row], {"epoch": done, "step": step}
        own = {name: total[row] for name, total in sums.items()}
        share = Share(optimizer, row)
        path = work.folder / CHECKPOINT
        save_checkpoint(path, work.model, share, plan_hash=work.plan_hash, sums=own, spent=spent, **place)
        work.journal.write("checkpoint", **place)

    def live() -> list[tuple[int, Work]]:
        return [(row, work) for row, work in enumerate(works) if row not in ended]

    kept, kept_at = 0, time.perf_counter()
    try:
        # -------------------------------------------------------------- before training
        for row, work in live():
            remove_leftovers(work.folder)
            work.journal.write(
                "start",
                **{"seed": work.seed, "plan": work.plan_hash, **work.facts},
                device=str(device),
                threads=torch.get_num_threads(),
                precision=precision,
                torch=torch.__version__,
                resumed_from_epoch=None,
                resumed_from_step=None,
                compile="off: stacked",
                ranks=1,
                note=None,
                stacked=size,
            )
            metrics[row] = evaluate(work.model)
            if work.observe is not None:
                metrics[row] |= work.observe(work.model, 0)
            work.journal.write("epoch", epoch=0, step=0, metrics=metrics[row])

        for epoch in range(1, spec.epochs + 1):
            # ---------------------------------------------------------- one epoch of steps
            started = told = time.perf_counter()
            for work in works:
                work.model.train()
                hold_statistics(work.model, work.held)
            orders = [feed.order(seed=work.seed, epoch=epoch) for work in works]
            for number in range(steps_per_epoch):
                stop_if(stop())

                # what the step sees, network by network
                paired = zip(works, orders, strict=True)
                seen = [feed.step(order_N, step, seed=work.seed) for work, order_N in paired]
                inputs_SB, targets_SB, labels_SB = map(torch.stack, zip(*seen, strict=True))

                # forward, backward, update, all at once
                with autocast(precision, device):
                    losses_S, logits_SNK = stack.losses(inputs_SB, targets_SB, smoothing=spec.label_smoothing)
                optimizer.zero_grad()
                losses_S.sum().backward()  # type: ignore[no-untyped-call]
                if spec.clip_norm is not None:
                    stack.clip(spec.clip_norm)
                set_rate(optimizer, peak * rate(spec.schedule, step=step, steps=steps))
                optimizer.step()
                step += 1
                sums["loss"] += losses_S.detach()
                sums["right"] += (logits_SNK.detach().argmax(2) == labels_SB.flatten(1)).sum(1)

                # what is told and kept by the clock
                now = time.perf_counter()
                if now - told >= PROGRESS_SECONDS:
                    pace = (number + 1) * batch / (spent + now - started)
                    for _, work in live():
                        work.journal.write(
                            "progress", epoch=epoch, step=step, steps=steps, images_per_second=pace
                        )
                    told = now
                if spec.checkpoint.minutes is not None and now - kept_at >= 60 * spec.checkpoint.minutes:
                    spent, started = spent + now - started, now
                    for row, _ in live():
                        keep(row)
                    kept, kept_at = step, time.perf_counter()

            # ---------------------------------------------------------- the epoch's figures
            whole = {name: total.tolist() for name, total in sums.items()}  # waits for the device
            spent += time.perf_counter() - started
            for row, work in live():
                found = epoch_figures(
                    work.model,
                    epoch,
                    spec=spec,
                    loss=whole["loss"][row] / steps_per_epoch,
                    accuracy=whole["right"][row] / feed.examples.asked(orders[row]),
                    lr=peak * rate(spec.schedule, step=step - 1, steps=steps),
                    images=steps_per_epoch * batch,
                    seconds=spent,
                    evaluate=evaluate,
                    observe=work.observe,
                )
                metrics[row] |= found
                work.journal.write("epoch", epoch=epoch, step=step, metrics=found)
                try:
                    refuse_nonfinite(found, epoch=epoch)
                except RunError as error:
                    ended[row] = Outcome("FAILED", metrics[row], str(error))
            done, spent = epoch, 0.0
            for total in sums.values():
                total.zero_()
            if not live():
                break
            if epoch % spec.checkpoint.every == 0 or epoch == spec.epochs:
                for row, _ in live():
                    keep(row)
                kept, kept_at = step, time.perf_counter()

        # -------------------------------------------------------------- after training
        for row, work in live():
            check_frozen(work.model, work.frozen)
            if spec.checkpoint.keep_weights:
                path = work.folder / WEIGHTS
                save_weights(path, work.model, epoch=spec.epochs, step=steps, plan_hash=work.plan_hash)
                work.journal.write("artifact", file=WEIGHTS, kind="weights")
                (work.folder / CHECKPOINT).unlink(missing_ok=True)
            ended[row] = Outcome("FINISHED", metrics[row])
    except Stopped as stopped:
        for row, _ in live():
            trouble = kept_at_a_stop(lambda row=row: keep(row)) if step > kept else ""  # type: ignore[misc]
            ended[row] = Outcome("KILLED", metrics[row], f"{stopped}{trouble}")
    except torch.OutOfMemoryError:
        for row, _ in live():
            ended[row] = Outcome("FAILED", metrics[row], f"out of memory on {device}: fewer `study.slots`")
    except RunError as error:
        for row, _ in live():
            ended[row] = Outcome("FAILED", metrics[row], str(error))
    return [ended[row] for row in range(size)]
