"""Metrics of an epoch, under the names that journals and comparisons know them by."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimetic.data.dataset import Split
from mimetic.errors import RunError
from mimetic.train.batches import Decode
from mimetic.train.devices import Precision, autocast
from mimetic.train.distributed import SINGLE_PROCESS, DistContext
from mimetic.train.job import Stop, never, stop_if
from mimetic.train.objective import loss_and_metrics


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    decode: Decode,
    batch_size: int,
    precision: Precision,
    stop: Stop = never,
    context: DistContext = SINGLE_PROCESS,
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy on a split, without a host synchronization per batch.

    Args:
        model: The model; it is left in evaluation mode.
        split: The split, on the model's device.
        decode: From the split's inputs to those of the model.
        batch_size: Examples per step; the last batch may be smaller.
        precision: Arithmetic of the forward pass.
        stop: Called before each batch; several processes evaluate to the end.
        context: The processes that share the batches.

    Raises:
        Stopped: If `stop` returns a reason.
    """
    model.eval()
    context.broadcast_buffers(model)
    device = split.labels.device
    sum_loss, sum_correct = torch.zeros((), device=device), torch.zeros((), device=device)
    for first in range(context.rank * batch_size, len(split), context.world_size * batch_size):
        inputs = split.inputs[first : first + batch_size]
        labels = split.labels[first : first + batch_size]
        stop_if(stop() if context.world_size == 1 else None)
        with autocast(precision, device):
            logits: Tensor = model(decode(inputs))
        loss, num_correct = loss_and_metrics(logits, labels, labels, reduction="sum")
        sum_loss += loss
        sum_correct += num_correct
    count = split.num_targets()
    return context.all_reduce_sum(sum_loss).item() / count, context.all_reduce_sum(sum_correct).item() / count


def evaluate_splits(
    model: nn.Module,
    *,
    splits: Mapping[tuple[str, str], Split],
    decode: Decode,
    batch_size: int,
    precision: Precision,
    stop: Stop = never,
    context: DistContext = SINGLE_PROCESS,
) -> dict[str, float]:
    """Return loss and accuracy on each split, e.g. `val/loss`; of a probe, e.g. `test/acc_noisy`.

    Arguments and errors are those of `evaluate`.
    """
    metrics: dict[str, float] = {}
    for (name, probe), split in splits.items():
        loss, accuracy = evaluate(
            model,
            split,
            decode=decode,
            batch_size=batch_size,
            precision=precision,
            stop=stop,
            context=context,
        )
        suffix = f"_{probe}" if probe else ""
        metrics |= {f"{name}/loss{suffix}": loss, f"{name}/acc{suffix}": accuracy}
    return metrics


def all_finite(metrics: Mapping[str, float]) -> bool:
    """Return whether no metric is nan or infinite."""
    return all(map(math.isfinite, metrics.values()))


def require_finite(metrics: Mapping[str, float], *, epoch: int) -> None:
    """End a trial that diverged.

    Raises:
        RunError: If a metric is not finite; it names the metric and remedies.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise RunError(
                f"{name} is {value} after epoch {epoch}: training diverged; lower train.optimizer.lr, "
                "set train.clip_norm, or inspect the initial scale with `mimetic plan`",
                code="MIM-T010",
            )
