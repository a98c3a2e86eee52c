"""Loss and accuracy of a model on a split, without a host synchronization per batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.data.dataset import Split
from mimetic.train.batches import Decode, rows
from mimetic.train.devices import Precision, autocast
from mimetic.train.ranks import ALONE, Ranks
from mimetic.train.stopping import Stop, never, stop_if


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    decode: Decode,
    batch_size: int,
    precision: Precision,
    stop: Stop = never,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Return the mean cross-entropy and the share of answers that are right, in evaluation mode.

    Of sequences, the answers are the tokens asked for.

    Args:
        model: The model; it is left in evaluation mode.
        split: The split, on the model's device.
        decode: From its inputs to what the model reads.
        batch_size: Examples per step; the last batch may be smaller.
        precision: Arithmetic of the forward pass.
        stop: Asked before each batch; several ranks evaluate to the end.
        ranks: The processes that evaluate together, each every so many batches.

    Raises:
        Stopped: If `stop` says so.
    """
    model.eval()
    ranks.same_buffers(model)
    device = split.labels.device
    loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
    for first in range(ranks.rank * batch_size, len(split), ranks.size * batch_size):
        inputs = split.inputs[first : first + batch_size]
        labels = split.labels[first : first + batch_size]
        stop_if(stop() if ranks.size == 1 else None)
        with autocast(precision, device):
            logits: Tensor = model(decode(inputs))
        logits_NK, labels_N = rows(logits, labels)
        loss += F.cross_entropy(logits_NK.float(), labels_N, reduction="sum")
        right += (logits_NK.argmax(1) == labels_N).sum()
    count = split.num_targets()
    return ranks.total(loss).item() / count, ranks.total(right).item() / count
