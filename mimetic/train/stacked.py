"""Several networks of one architecture trained as one: each layer computes all of them at once. Experimental.

Their parameters lie stacked along a new first dimension S, forward and backward run under
`torch.func.vmap`, and the optimizer, elementwise, acts on the stacks. Each network's own parameters are
views of its rows, so evaluation, measurements, weights and checkpoints are those of a network by itself, and
a checkpoint goes on without a stack. Every network has its own order, augmentation and mixing, keyed as in
`train.loop`; sums of losses keep gradients apart, so one that diverges harms no other.

This pays where launching kernels costs more than what they compute; the idea is that of HFTA (Wang et al.
2021, arXiv 2102.02344). What cannot be stacked is told by `reason_against`.
"""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic import streams
from mimetic.data import augmenter
from mimetic.errors import RunError
from mimetic.recipe.train import Adam, AdamW, RmsProp, Sgd
from mimetic.train.batches import epoch_order, mixer, reader, resident, rows
from mimetic.train.begin import CHECKPOINT, WEIGHTS
from mimetic.train.checkpoint import remove_leftovers, save_checkpoint, save_weights
from mimetic.train.devices import (
    autocast,
    keeping_global_streams,
    pick_device,
    pick_precision,
    set_arithmetic,
)
from mimetic.train.evaluate import evaluate
from mimetic.train.freeze import check_frozen, hold_statistics
from mimetic.train.loop import PROGRESS_SECONDS
from mimetic.train.optimizers import make_optimizer, set_rate
from mimetic.train.outcome import Outcome, kept_at_a_stop, refuse_nonfinite
from mimetic.train.schedules import rate
from mimetic.train.stopping import Stop, Stopped, stop_if
from mimetic.train.work import Work

ELEMENTWISE = (Sgd, Adam, AdamW, RmsProp)
"""Optimizers that treat every number by itself, stacked or not."""


# ---------------------------------------------------------------------------------------------- the stack
class Stack:
    """The parameters and buffers of several networks as one set of tensors (S, …).

    Args:
        models: Networks with the same names and shapes, on one device; their tensors become views.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models
        self.parameters = {
            name: nn.Parameter(_stacked(models, name), requires_grad=parameter.requires_grad)
            for name, parameter in models[0].named_parameters()
        }
        self.buffers = {name: _stacked(models, name) for name, _ in models[0].named_buffers()}
        for row, model in enumerate(models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.data = (self.parameters | self.buffers)[name].data[row]

    def losses(self, inputs_SB: Tensor, targets_SB: Tensor, *, smoothing: float) -> tuple[Tensor, Tensor]:
        """Return each network's loss (S,) and its logits (S, N, K), rows of sequences flattened.

        Running statistics are updated in place.
        """

        def one(
            parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
        ) -> tuple[Tensor, Tensor]:
            logits = functional_call(self.models[0], (dict(parameters), dict(buffers)), (inputs,))
            logits, targets = rows(logits, targets)
            return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing), logits

        return vmap(one)(self.parameters, self.buffers, inputs_SB, targets_SB)

    def clip(self, norm: float) -> None:
        """Scale each network's gradient to a norm of at most so much."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        squares_S = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        scale_S = (norm / (squares_S.sqrt() + 1e-6)).clamp(max=1.0)  # as `nn.utils.clip_grad_norm_`
        for gradient in gradients:
            gradient.mul_(scale_S.view(-1, *[1] * (gradient.ndim - 1)))


def _stacked(models: Sequence[nn.Module], name: str) -> Tensor:
    tensors = [dict((*model.named_parameters(), *model.named_buffers()))[name] for model in models]
    return torch.stack([tensor.detach().contiguous() for tensor in tensors])


class _Share:
    """One network's share of the optimizer, as a checkpoint keeps it."""

    def __init__(self, optimizer: torch.optim.Optimizer, row: int) -> None:
        self.optimizer, self.row = optimizer, row

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a network's own parameters; counts of steps are common."""
        state = self.optimizer.state_dict()["state"]
        own = {
            number: {k: v[self.row] if isinstance(v, Tensor) and v.ndim else v for k, v in values.items()}
            for number, values in state.items()
        }
        return {"state": own}


# ---------------------------------------------------------------------------------------------- whether
def reason_against(works: Sequence[Work]) -> str | None:
    """Return why networks cannot be trained as one; None where they can."""
    first, optimizer = works[0], works[0].spec.optimizer
    kept = (work.folder / file for work in works for file in (CHECKPOINT, WEIGHTS))
    outline = _outline(first)
    reasons = {
        "it is the only one of its kind": len(works) == 1,
        f"`{optimizer.type_name()}` may not act on each number by itself": type(optimizer) not in ELEMENTWISE,
        "`train.compile` is on": first.spec.compile is True,
        "a trial is profiled": any(work.profiler is not None for work in works),
        "a trial goes on at a checkpoint": any(path.exists() for path in kept),
        "shapes differ, or what is frozen": any(_outline(work) != outline for work in works),
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    return _refusal(works) if found is None else found


def _outline(work: Work) -> list[object]:
    """Return the names, shapes and kinds of a network's tensors and layers, and which statistics are held."""
    tensors = (*work.model.named_parameters(), *work.model.named_buffers())
    outline: list[object] = [(n, t.shape, t.dtype, t.requires_grad) for n, t in tensors]
    return [*outline, *((name, type(layer)) for name, layer in work.model.named_modules()), *work.held]


def _refusal(works: Sequence[Work]) -> str | None:
    """Return what vmap says to two networks and two images, forward and backward; None if it computes them.

    Dropout and the like are refused: their draws would not be those of a network by itself. So is what vmap
    would compute network by network, for want of a rule, since that gains nothing.
    """
    model = works[0].model
    model.train()
    pair = [model, model]
    parameters = {name: _stacked(pair, name).requires_grad_() for name, _ in model.named_parameters()}
    buffers = {name: _stacked(pair, name) for name, _ in model.named_buffers()}
    device = next(model.parameters()).device
    read = reader(works[0].dataset, device=device, channels_last=False)
    inputs = read(works[0].dataset.train.inputs[:2].to(device))

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(model, (parameters, buffers), (inputs,))  # type: ignore[no-any-return]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            vmap(one)(parameters, buffers).sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError, TypeError, ValueError, UserWarning) as error:
        return f"torch.func.vmap refuses the network: {' '.join(str(error).split())[:160]}"
    return None


# ---------------------------------------------------------------------------------------------- training
@keeping_global_streams()
def train_stacked(works: Sequence[Work], stop: Stop) -> list[Outcome]:  # noqa: C901, PLR0912, PLR0915 (one line)
    """Train several networks as one, each with its own journal, checkpoints and weights.

    Args:
        works: What `reason_against` found nothing against.
        stop: Asked before each step; a reason ends all as KILLED, with their state kept.

    Returns:
        An outcome for each. A network whose loss is not finite is FAILED; the others go on.
    """
    spec, dataset, size = works[0].spec, works[0].dataset, len(works)
    device = pick_device(spec.device)
    precision = pick_precision(spec.precision, device)
    set_arithmetic(precision, device)

    # ------------------------------------------------------------------ data, networks, optimizer
    examples = resident(dataset.train, device)
    held_out = {name: resident(split, device) for name, split in dataset.splits().items()}
    decode = reader(dataset, device=device, channels_last=False)  # vmap has layouts of its own
    augmented = augmenter(works[0].augment, mean=dataset.mean)
    mixed = mixer(spec, classes=dataset.num_classes, device=device)
    draws = torch.Generator(device)
    batch = min(spec.batch_size, len(examples))
    steps_per_epoch = len(examples) // batch
    steps = steps_per_epoch * spec.epochs
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

    def evaluated(work: Work) -> dict[str, float]:
        found: dict[str, float] = {}
        for (name, probe), split in held_out.items():
            loss, accuracy = evaluate(
                work.model,
                split,
                decode=decode,
                batch_size=spec.eval_batch_size,
                precision=precision,
                stop=stop,
            )
            end = f"_{probe}" if probe else ""
            found |= {f"{name}/loss{end}": loss, f"{name}/acc{end}": accuracy}
        return found

    def keep(row: int) -> None:
        work, place = works[row], {"epoch": done, "step": step}
        own = {name: total[row] for name, total in sums.items()}
        share = _Share(optimizer, row)
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
            metrics[row] = evaluated(work)
            if work.observe is not None:
                metrics[row] |= work.observe(work.model, 0)
            work.journal.write("epoch", epoch=0, step=0, metrics=metrics[row])

        for epoch in range(1, spec.epochs + 1):
            # ---------------------------------------------------------- one epoch of steps
            started = told = time.perf_counter()
            for work in works:
                work.model.train()
                hold_statistics(work.model, work.held)
            orders = [epoch_order(len(examples), seed=w.seed, epoch=epoch, device=device) for w in works]
            for number in range(steps_per_epoch):
                stop_if(stop())

                # what the step sees, network by network
                seen: list[tuple[Tensor, Tensor, Tensor]] = []
                for work, order_N in zip(works, orders, strict=True):
                    chosen_B = order_N[number * batch : (number + 1) * batch]
                    labels = targets = examples.labels.index_select(0, chosen_B)
                    draws.manual_seed(streams.key(work.seed, "augment", step))
                    inputs = decode(augmented(examples.inputs.index_select(0, chosen_B), draws))
                    if mixed is not None:
                        inputs, targets = mixed(inputs, labels, streams.key(work.seed, "mix", step))
                        labels = targets.argmax(1)
                    seen.append((inputs, targets, labels))
                inputs_SB, targets_SB, labels_SB = (torch.stack(part) for part in zip(*seen, strict=True))

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
                found = {
                    "train/loss": whole["loss"][row] / steps_per_epoch,
                    "train/acc": whole["right"][row] / examples.asked(orders[row][: steps_per_epoch * batch]),
                    "lr": peak * rate(spec.schedule, step=step - 1, steps=steps),
                    "images_per_second": steps_per_epoch * batch / spent,
                }
                before = time.perf_counter()
                finite = math.isfinite(found["train/loss"])
                if finite and (epoch % spec.eval_every == 0 or epoch == spec.epochs):
                    found |= evaluated(work)
                found["epoch_seconds"] = spent + time.perf_counter() - before
                if work.observe is not None and all(map(math.isfinite, found.values())):
                    found |= work.observe(work.model, epoch)
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
