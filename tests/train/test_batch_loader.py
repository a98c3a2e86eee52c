"""Batches by counters: whole ones, the same for every trial of a seed."""

import pytest
import torch

from mimetic import streams
from mimetic.data.config import Crop, Flip
from mimetic.data.dataset import Dataset, Images
from mimetic.train.batches import BatchLoader, decoder
from mimetic.train.config import Train

CPU = torch.device("cpu")
COUNT = 10
PIXELS = torch.randint(0, 256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=streams.generator(0, "pixels"))
IMAGES = Images(pixels_NCHW=PIXELS, labels_N=torch.arange(COUNT))
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
DATASET = Dataset(
    name="ten", train=IMAGES, val=None, test=IMAGES, num_classes=COUNT, mean=MEAN, std=STD, digest=""
)


def loader(augment: tuple[Crop | Flip, ...] = (), **train: object) -> BatchLoader:
    """Return a loader of the ten images."""
    spec = Train.model_validate({"epochs": 2, "batch_size": 4, "channels_last": False, **train})
    return BatchLoader(DATASET, spec, augment=augment, device=CPU)


@pytest.mark.parametrize(
    ("batch_size", "batch", "steps_per_epoch"), [(4, 4, 2), (5, 5, 2), (10, 10, 1), (64, 10, 1)]
)
def test_an_epoch_is_whole_batches(batch_size: int, batch: int, steps_per_epoch: int) -> None:
    """What remains of a permutation is left out; a split smaller than a batch is one batch."""
    found = loader(batch_size=batch_size)
    assert (found.batch_size, found.steps_per_epoch, found.steps) == (
        batch,
        steps_per_epoch,
        2 * steps_per_epoch,
    )
    order_N = found.epoch_order(seed=0, epoch=1)
    assert len(set(order_N.tolist())) == len(order_N) == batch * steps_per_epoch


def test_a_step_is_the_images_of_its_place_decoded() -> None:
    """Steps are counted over all epochs, and each takes the next batch of its own epoch's order."""
    found = loader()
    decode = decoder(MEAN, STD, device=CPU, channels_last=False)
    for epoch in (1, 2):
        order_N = found.epoch_order(seed=3, epoch=epoch)
        for number, chosen_B in enumerate(order_N.split(4)):
            inputs, targets, answers = found.batch(order_N, 2 * (epoch - 1) + number, seed=3)
            assert torch.equal(inputs, decode(PIXELS[chosen_B]))
            assert torch.equal(targets, chosen_B)
            assert torch.equal(answers, chosen_B)


def test_steps_are_paired_by_seed() -> None:
    """Another loader, as another arm has it, shows the same crops and mirrors under the same seed only."""
    first, second = loader((Crop(padding=2), Flip())), loader((Crop(padding=2), Flip()))
    order_N = first.epoch_order(seed=0, epoch=1)
    first.batch(order_N, 0, seed=0)  # what was drawn before does not matter
    shown = first.batch(order_N, 1, seed=0)[0]
    assert torch.equal(shown, second.batch(order_N, 1, seed=0)[0])
    assert not torch.equal(shown, second.batch(order_N, 1, seed=1)[0])


def test_the_larger_share_of_a_mixed_target_is_right() -> None:
    """Targets of a mixed step are shares of classes; the answer is the class with the larger one."""
    found = loader(mixup=0.4)
    _, target_BK, answers_B = found.batch(found.epoch_order(seed=0, epoch=1), 0, seed=0)
    torch.testing.assert_close(target_BK.sum(1), torch.ones(4))
    assert torch.equal(answers_B, target_BK.argmax(1))
    assert (target_BK > 0).sum() > len(answers_B)
