"""Loss and accuracy of a model on a split, without a host synchronization per batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.data import Images
from mimetic.train.batches import Decode
from mimetic.train.devices import Precision, autocast
from mimetic.train.stopping import Stop, never, stop_if


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Images,
    *,
    decode: Decode,
    batch_size: int,
    precision: Precision,
    stop: Stop = never,
) -> tuple[float, float]:
    """Return the mean cross-entropy and the share of images classified right, in evaluation mode.

    Args:
        model: The model; it is left in evaluation mode.
        images: The split, on the model's device.
        decode: From uint8 pixels to what the model reads.
        batch_size: Images per step; the last batch may be smaller.
        precision: Arithmetic of the forward pass.
        stop: Asked before each batch.

    Raises:
        Stopped: If `stop` says so.
    """
    model.eval()
    device = images.labels_N.device
    loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
    for first in range(0, len(images), batch_size):
        pixels_NCHW = images.pixels_NCHW[first : first + batch_size]
        labels_N = images.labels_N[first : first + batch_size]
        stop_if(stop())
        with autocast(precision, device):
            logits_NK: Tensor = model(decode(pixels_NCHW))
        loss += F.cross_entropy(logits_NK.float(), labels_N, reduction="sum")
        right += (logits_NK.argmax(1) == labels_N).sum()
    count = len(images)
    return loss.item() / count, right.item() / count
