"""What a step sees."""

import pytest
import torch

from mimetic import streams
from mimetic.data.dataset import Images
from mimetic.data.mix import cutmix, mixup
from mimetic.train.batches import decoder, epoch_order, mixer, to_device
from mimetic.train.config import Train

CPU = torch.device("cpu")
PIXELS = torch.arange(256, dtype=torch.uint8).view(2, 2, 8, 8)


@pytest.mark.parametrize("channels_last", [True, False])
def test_decoding_is_its_equation(channels_last: bool) -> None:
    """(pixel / 255 - mean) / std per channel, in the layout asked for; the bytes stay as they are."""
    before = PIXELS.clone()
    decoded = decoder((0.25, 0.5), (0.5, 0.2), device=CPU, channels_last=channels_last)(PIXELS)
    mean, std = torch.tensor([0.25, 0.5])[:, None, None], torch.tensor([0.5, 0.2])[:, None, None]
    torch.testing.assert_close(decoded, (PIXELS / 255 - mean) / std)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert decoded.is_contiguous(memory_format=layout)
    assert torch.equal(before, PIXELS)


def test_order_is_a_permutation_keyed_by_seed_and_epoch() -> None:
    """Every image comes once; another epoch or seed has another order, the same ones the same."""
    orders = [epoch_order(50, seed=seed, epoch=epoch, device=CPU) for seed, epoch in [(0, 1), (0, 2), (1, 1)]]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(orders[0], epoch_order(50, seed=0, epoch=1, device=CPU))


def test_images_on_the_device_are_not_copied() -> None:
    """Images that are where they should be stay in place, as in a queue of trials."""
    images = Images(pixels_NCHW=PIXELS, labels_N=torch.zeros(2, dtype=torch.int64))
    moved = to_device(images, CPU)
    assert moved.pixels_NCHW.data_ptr() == PIXELS.data_ptr()


def test_no_mixing_unless_asked() -> None:
    """The default leaves images and labels alone."""
    assert mixer(Train(), classes=3, device=CPU) is None


def test_mixing_is_that_of_the_data_room() -> None:
    """With one kind switched on, each step is that kind under the step's key."""
    images, labels = torch.rand(8, 3, 4, 4, generator=streams.generator(0)), torch.arange(8) % 3
    mix = mixer(Train(mixup=0.4), classes=3, device=CPU)
    assert mix is not None
    key = streams.key(0, "mix", 7)
    one_hot = torch.eye(3)[labels]
    expected = mixup(images, one_hot, 0.4, torch.Generator().manual_seed(key))
    assert all(torch.equal(*pair) for pair in zip(expected, mix(images, labels, key), strict=True))


def test_both_kinds_take_turns() -> None:
    """With both switched on, steps take either, about equally often."""
    images, labels = torch.rand(4, 1, 4, 4, generator=streams.generator(0)), torch.arange(4)
    mix = mixer(Train(mixup=1.0, cutmix=1.0), classes=4, device=CPU)
    assert mix is not None
    chosen = []
    for step in range(60):
        key = streams.key(0, "mix", step)
        mixed, _ = mix(images, labels, key)
        draws = torch.Generator().manual_seed(key)
        chosen.append(torch.equal(mixed, cutmix(images, torch.eye(4), 1.0, draws)[0]))
    assert 15 < sum(chosen) < 45
