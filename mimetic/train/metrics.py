"""Metrics of an epoch, under the names that journals and comparisons know them by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimetic.data.dataset import Split
from mimetic.errors import RunError
from mimetic.metrics import metric_name
from mimetic.train.batches import Decode
from mimetic.train.devices import Precision, autocast
from mimetic.train.distributed import SINGLE_PROCESS, DistContext
from mimetic.train.job import Stop, never, stop_if
from mimetic.train.objective import loss_and_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluates a model without a host synchronization per batch.

    `decode` turns the inputs of a split into those of the model. `stop` is called before each batch; several
    processes evaluate to the end and share the batches.
    """

    decode: Decode
    batch_size: int
    precision: Precision
    stop: Stop = never
    context: DistContext = SINGLE_PROCESS

    def evaluate_splits(self, model: nn.Module, splits: Mapping[tuple[str, str], Split]) -> dict[str, float]:
        """Return loss and accuracy on each split, e.g. `val/loss`; of a probe, e.g. `test/acc_noisy`.

        Raises:
            Stopped: If `stop` returns a reason.
        """
        metrics: dict[str, float] = {}
        for (name, probe), split in splits.items():
            loss, accuracy = self.evaluate(model, split)
            metrics |= {metric_name(name, "loss", probe): loss, metric_name(name, "acc", probe): accuracy}
        return metrics

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: Split) -> tuple[float, float]:
        """Return mean cross-entropy and accuracy on a split; the model is left in evaluation mode.

        Raises:
            Stopped: If `stop` returns a reason.
        """
        model.eval()
        rank, world_size = self.context.rank, self.context.world_size
        self.context.broadcast_buffers(model)
        device = split.labels.device
        sum_loss, sum_correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for first in range(rank * self.batch_size, len(split), world_size * self.batch_size):
            inputs = split.inputs[first : first + self.batch_size]
            labels = split.labels[first : first + self.batch_size]
            stop_if(self.stop() if world_size == 1 else None)
            with autocast(self.precision, device):
                logits: Tensor = model(self.decode(inputs))
            loss, num_correct = loss_and_metrics(logits, labels, labels, reduction="sum")
            sum_loss += loss
            sum_correct += num_correct
        sums = [self.context.all_reduce_sum(value).item() for value in (sum_loss, sum_correct)]
        return sums[0] / split.num_targets(), sums[1] / split.num_targets()


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
