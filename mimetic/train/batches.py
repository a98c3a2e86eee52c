"""Batches of a data set that stays on the device: order, augmentation, decoding, mixing.

Images stay on the device as bytes and are augmented and decoded there. The order of epoch e and the draws
of step t depend on the seed and on e or t alone: arms are paired by seed, and a resumed run needs no loader
state.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mimetic import streams
from mimetic.config.registry import Component
from mimetic.data.augment import augmenter
from mimetic.data.dataset import Dataset, Images, Split, Tokens
from mimetic.data.mix import cutmix, mixup
from mimetic.train.config import Train

Decode = Callable[[Tensor], Tensor]
"""From the stored inputs of a data set to the inputs of a model."""

Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""`mix(images_BCHW, labels_B, step_key)` returns mixed images and class probabilities (B, K)."""


class BatchLoader:
    """Batches and held-out splits of one data set on one device.

    An epoch takes as many whole batches as the training split holds and drops the rest of its permutation;
    each epoch has another permutation. A split smaller than one batch is one batch.

    Attributes:
        examples: The training split, on the device.
        held_out: The other splits and their probes, on the device, by (split, probe).
        batch_size: Examples per step.
        steps_per_epoch: Steps of an epoch.
        steps: Steps of the whole training.
        decode: From stored inputs to those of the model.
    """

    def __init__(
        self, dataset: Dataset, spec: Train, *, device: torch.device, augment: Sequence[Component] = ()
    ) -> None:
        self.examples = to_device(dataset.train, device)
        self.held_out = {name: to_device(split, device) for name, split in dataset.splits().items()}
        self.batch_size = min(spec.batch_size, len(self.examples))
        self.steps_per_epoch = len(self.examples) // self.batch_size
        self.steps = self.steps_per_epoch * spec.epochs
        self.decode = input_decoder(dataset, device=device, channels_last=spec.channels_last)
        self._augment = augmenter(augment, mean=dataset.mean)
        self._mix = mixer(spec, classes=dataset.num_classes, device=device)
        self._generator = torch.Generator(device)
        self._device = device

    def epoch_order(self, *, seed: int, epoch: int) -> Tensor:
        """Return the indices of the examples an epoch trains on, in order."""
        order_N = epoch_order(len(self.examples), seed=seed, epoch=epoch, device=self._device)
        return order_N[: self.steps_per_epoch * self.batch_size]

    def batch(self, order_N: Tensor, step: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, targets (class probabilities where images are mixed) and labels of one step.

        Steps are counted from 0 over all epochs; `order_N` is that of the step's epoch.
        """
        first = step % self.steps_per_epoch * self.batch_size
        index_B = order_N[first : first + self.batch_size]
        stored = self.examples.inputs.index_select(0, index_B)  # ten times faster than `inputs[index_B]`
        labels = self.examples.labels.index_select(0, index_B)
        self._generator.manual_seed(streams.key(seed, "augment", step))
        inputs = self.decode(self._augment(stored, self._generator))
        if self._mix is None:
            return inputs, labels, labels
        inputs, targets_BK = self._mix(inputs, labels, streams.key(seed, "mix", step))
        return inputs, targets_BK, targets_BK.argmax(1)


def to_device(split: Split, device: torch.device) -> Split:
    """Return a split on a device. Pixels stay uint8; tensors that are there already are not copied."""
    if isinstance(split, Tokens):
        return Tokens(tokens_NL=split.tokens_NL.to(device), labels_NL=split.labels_NL.to(device))
    return Images(pixels_NCHW=split.pixels_NCHW.to(device), labels_N=split.labels_N.to(device))


def epoch_order(count: int, *, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Return a permutation of `count` examples. It is drawn on the CPU, so it is the same on any device."""
    return torch.randperm(count, generator=streams.generator(seed, "order", epoch)).to(device)


def input_decoder(dataset: Dataset, *, device: torch.device, channels_last: bool) -> Decode:
    """Return the decoder of a data set's inputs; tokens are passed on unchanged."""
    if isinstance(dataset.train, Tokens):
        return lambda tokens_NL: tokens_NL
    return decoder(dataset.mean, dataset.std, device=device, channels_last=channels_last)


def decoder(
    mean: Sequence[float], std: Sequence[float], *, device: torch.device, channels_last: bool
) -> Decode:
    """Return the function uint8 NCHW → float32 NCHW, (pixel / 255 - mean) / std per channel.

    Mean and standard deviation are those of pixels in [0, 1].
    """
    mean_C11 = torch.tensor(mean, device=device)[:, None, None]
    std_C11 = torch.tensor(std, device=device)[:, None, None]
    scale_C11, shift_C11 = 1.0 / (255.0 * std_C11), -mean_C11 / std_C11
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def decode(pixels_NCHW: Tensor) -> Tensor:
        # Arithmetic first, layout last: 0.18 ms for 128 CIFAR images on a core, the other way round 0.61 ms.
        images_NCHW = pixels_NCHW.float().mul_(scale_C11).add_(shift_C11)
        return images_NCHW.contiguous(memory_format=layout)

    return decode


def mixer(spec: Train, *, classes: int, device: torch.device) -> Mix | None:
    """Return the function that mixes a batch, or None if neither mixup nor cutmix is enabled.

    If both are enabled, each step uses one of them, with equal probability.
    """
    enabled = [(kind, alpha) for kind, alpha in ((mixup, spec.mixup), (cutmix, spec.cutmix)) if alpha > 0.0]
    if not enabled:
        return None
    generator = torch.Generator(device)
    class_K = torch.arange(classes, device=device)

    def mix(images_BCHW: Tensor, labels_B: Tensor, step_key: int) -> tuple[Tensor, Tensor]:
        generator.manual_seed(step_key)
        kind, alpha = enabled[step_key % len(enabled)]
        target_BK = (labels_B[:, None] == class_K).float()  # `one_hot` would synchronize with the host
        return kind(images_BCHW, target_BK, alpha, generator)

    return mix
