"""Loss and metric of training and evaluation: cross-entropy and accuracy.

Another task (regression, a second metric) changes this file and the names in `metrics.py`.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)


def loss_and_metrics(
    logits: Tensor,
    targets: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the number of correct predictions, both on the device.

    Sequences are scored token by token; tokens with a negative label (`ignore_index`) count in neither.

    Args:
        logits: (N, K), or (N, L, K) for sequences.
        targets: Class indices (N,) or (N, L), or class probabilities (N, K) of mixed images.
        labels: The correct class of each prediction, (N,) or (N, L).
        label_smoothing: Label smoothing of the loss.
        reduction: Whether the loss is the mean or the sum over predictions.
    """
    if logits.ndim > 2:  # noqa: PLR2004 (sequences: N, L, K)
        logits, targets = logits.flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction=reduction)
    num_correct = (logits.detach().argmax(1) == labels.flatten()).sum()
    return loss, num_correct
