"""A data set as a training loop sees it: bytes on the device, each step's batch made there by counters."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mimetic import streams
from mimetic.config.registry import Component
from mimetic.data.augment import augmenter
from mimetic.data.dataset import Dataset
from mimetic.train.batches import epoch_order, mixer, reader, resident
from mimetic.train.config import Train
from mimetic.train.devices import Precision
from mimetic.train.figures import Evaluate, evaluate_splits
from mimetic.train.ranks import ALONE, Ranks
from mimetic.train.stopping import Stop


class Feed:
    """Orders, batches and held-out splits of one data set on one device.

    An epoch takes as many whole batches as the training split holds. What remains of a permutation is left
    out; each epoch has another permutation. A split smaller than one batch is one batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: Train,
        *,
        augment: Sequence[Component],
        device: torch.device,
        channels_last: bool,
    ) -> None:
        self.examples = resident(dataset.train, device)
        self._held_out = {name: resident(split, device) for name, split in dataset.splits().items()}
        self.batch = min(spec.batch_size, len(self.examples))
        self.steps_per_epoch = len(self.examples) // self.batch
        self.steps = self.steps_per_epoch * spec.epochs
        self._decode = reader(dataset, device=device, channels_last=channels_last)
        self._augmented = augmenter(augment, mean=dataset.mean)
        self._mixed = mixer(spec, classes=dataset.num_classes, device=device)
        self._draws = torch.Generator(device)
        self._eval_batch_size = spec.eval_batch_size
        self._device = device

    def order(self, *, seed: int, epoch: int) -> Tensor:
        """Return the examples an epoch trains on, in order, by index."""
        order_N = epoch_order(len(self.examples), seed=seed, epoch=epoch, device=self._device)
        return order_N[: self.steps_per_epoch * self.batch]

    def step(self, order_N: Tensor, step: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a step sees: inputs, targets (mixed where asked), and the answers that are right.

        Args:
            order_N: Order of the epoch that the step belongs to.
            step: The step, counted from 0 over all epochs.
            seed: Seed of augmentation and mixing.
        """
        number = step % self.steps_per_epoch
        chosen_B = order_N[number * self.batch : (number + 1) * self.batch]
        raw = self.examples.inputs.index_select(0, chosen_B)  # ten times faster than `inputs[chosen]`
        labels = self.examples.labels.index_select(0, chosen_B)
        self._draws.manual_seed(streams.key(seed, "augment", step))
        inputs = self._decode(self._augmented(raw, self._draws))
        if self._mixed is None:
            return inputs, labels, labels
        inputs, targets = self._mixed(inputs, labels, streams.key(seed, "mix", step))
        return inputs, targets, targets.argmax(1)

    def evaluator(self, precision: Precision, stop: Stop, ranks: Ranks = ALONE) -> Evaluate:
        """Return the function from a model to loss and accuracy on every held-out split."""
        return partial(
            evaluate_splits,
            splits=self._held_out,
            decode=self._decode,
            batch_size=self._eval_batch_size,
            precision=precision,
            stop=stop,
            ranks=ranks,
        )
