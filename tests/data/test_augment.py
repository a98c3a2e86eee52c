"""Augmentations: what they do to one image, and that images do not share draws."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.config.registry import Component, registered
from mimetic.data.augment import augmenter, color_jitter, crop, cutout, flip
from mimetic.data.config import Crop, Flip
from mimetic.errors import UserError
from mimetic.streams import generator

SPECS = [
    *(section.model_validate(section.example) for section in registered("augment").values()),
    Crop(padding=2, fill="reflect"),
]
"""Every registered augmentation, plug-ins' included, and a variant."""


def pixels(count: int = 64, channels: int = 3, height: int = 8, width: int = 6) -> torch.Tensor:
    """Return random uint8 images, none of them black."""
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def key(step: int = 0) -> torch.Generator:
    """Return the generator of a step."""
    return generator(0, "augment", step)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: repr(spec.type_name()))
def test_keyed_and_pure(spec: Component, dtype: torch.dtype) -> None:
    """Equal keys give equal images, other keys others; shape, dtype and input stay."""
    x = pixels().to(dtype)
    before = x.clone()
    augment = augmenter([spec])
    try:
        first, again, other = augment(x, key()), augment(x, key()), augment(x, key(1))
    except UserError as error:
        assert dtype != torch.uint8, "every augmentation takes bytes"
        pytest.skip(str(error))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert (first.shape, first.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: repr(spec.type_name()))
def test_memory_format_does_not_matter(spec: Component) -> None:
    """Channels-last and non-contiguous inputs give the same images."""
    x = pixels()
    augment = augmenter([spec])
    expected = augment(x, key())

    assert torch.equal(expected, augment(x.contiguous(memory_format=torch.channels_last), key()))
    assert torch.equal(expected, augment(x.repeat_interleave(2, dim=3)[..., ::2], key()))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: repr(spec.type_name()))
def test_every_image_has_its_own_draw(spec: Component) -> None:
    """Copies of one image come out in many versions."""
    x = pixels(1).expand(64, -1, -1, -1)

    versions = {image.numpy().tobytes() for image in augmenter([spec])(x, key())}

    assert len(versions) >= (2 if isinstance(spec, Flip) else 12)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: repr(spec.type_name()))
def test_one_image_does_not_see_another(spec: Component) -> None:
    """Changing one image leaves all others as they were."""
    x = pixels()
    changed = x.clone()
    changed[5] = 255 - changed[5]
    augment = augmenter([spec])
    others = torch.arange(len(x)) != 5

    assert torch.equal(augment(x, key())[others], augment(changed, key())[others])


def test_order_is_that_of_the_list() -> None:
    """Operations are applied one after the other with the same generator."""
    x = pixels()
    draws = key()
    expected = crop(flip(x, draws), draws, padding=2)

    actual = augmenter([Flip(), Crop(padding=2)])(x, key())

    assert torch.equal(expected, actual)


def test_nothing_to_do() -> None:
    """No augmentation returns the images."""
    x = pixels()

    assert torch.equal(x, augmenter([])(x, key()))


def test_flip_is_an_involution() -> None:
    """With p = 1 one flip mirrors and two restore; with p = 0 nothing happens."""
    x = pixels()

    assert torch.equal(x.flip(3), flip(x, key(), p=1.0))
    assert torch.equal(x, flip(flip(x, key(), p=1.0), key(), p=1.0))
    assert torch.equal(x, flip(x, key(), p=0.0))


def test_flip_probability() -> None:
    """A share p of the images is mirrored, the others are left alone."""
    x = pixels(4000, 1, 2, 3)

    y = flip(x, key(), p=0.3)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    kept = (y == x).flatten(1).all(1)

    assert bool((mirrored | kept).all())
    assert mirrored.float().mean().item() == pytest.approx(0.3, abs=0.03)


@given(st.integers(1, 5), st.sampled_from(["zero", "reflect"]), st.integers(1, 4), st.sampled_from([6, 7, 9]))
def test_every_crop_is_a_window(padding: int, fill: str, channels: int, width: int) -> None:
    """Every output is a window of the padded input, at one place for all channels."""
    x = pixels(9, channels, 8, width)
    mode = {"zero": "constant", "reflect": "reflect"}[fill]
    padded = torch.nn.functional.pad(x.float(), (padding,) * 4, mode=mode)
    windows = padded.unfold(2, 8, 1).unfold(3, width, 1)

    y = crop(x, key(), padding=padding, fill=fill).float()
    found = (windows == y[:, :, None, None]).all(-1).all(-1).all(1).flatten(1).any(1)

    assert bool(found.all())


def test_crop_reaches_every_place() -> None:
    """All (2·padding + 1)² places are about equally frequent."""
    x = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    x[:, :, 2, 2] = 1

    place_N = crop(x, key(), padding=1).flatten(1).argmax(1)
    counts = torch.bincount(place_N, minlength=25).view(5, 5)[1:4, 1:4]

    assert counts.sum() == 9000
    assert bool(((counts - 1000).abs() < 150).all())


def test_reflection_beyond_the_border_is_refused() -> None:
    """Reflecting more than the image holds is a user's mistake."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D060"):
        crop(pixels(), key(), padding=6, fill="reflect")


@given(st.integers(1, 12))
def test_cutout_paints_one_square(size: int) -> None:
    """What is painted is one rectangle, a full square unless the border cuts it, never empty."""
    x = pixels(50, 2, 9, 9)

    y = cutout(x, key(), size=size, mean=(0.0, 0.0))
    changed = (y != x).any(1)
    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)

    assert bool((changed.sum((1, 2)) == rows * columns).all())
    assert bool((rows >= min(size - size // 2, 9)).all())
    assert bool((rows <= size).all())
    assert bool((columns <= size).all())


def test_cutout_area() -> None:
    """Far from the border the square has size² pixels."""
    x = pixels(4000, 1, 16, 16)

    area = (cutout(x, key(), size=4, mean=(0.0,)) != x).sum((1, 2, 3))

    # Thirteen of sixteen centres keep the whole square inside, in both directions.
    assert (area == 16).float().mean().item() == pytest.approx((13 / 16) ** 2, abs=0.03)
    assert area.max() == 16


def test_cutout_colors() -> None:
    """The colour is the data set's mean, else the image's own; 0 in normalized floats."""
    x = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    x[0, 0] = torch.tensor([0, 100, 200, 100], dtype=torch.uint8)

    assert cutout(x, key(), size=20, mean=(0.2, 0.4, 1.0))[0, :, 0, 0].tolist() == [51, 102, 255]
    assert cutout(x, key(), size=20)[0, :, 0, 0].tolist() == [100, 100, 100]
    assert cutout(x.float(), key(), size=20, mean=(0.2, 0.4, 1.0)).unique().tolist() == [0.0]


def jittered(x: torch.Tensor, **strengths: float) -> torch.Tensor:
    """Jitter with the strengths given and no others."""
    return color_jitter(x, key(), **{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, **strengths})


def test_no_strength_no_change() -> None:
    """Strength 0 leaves images alone."""
    assert torch.equal(pixels(), jittered(pixels()))


def test_brightness_scales() -> None:
    """Brightness multiplies each image by a factor in 1 ± strength."""
    x = pixels().float()

    ratio = jittered(x, brightness=0.3) / x
    factor_N = ratio.mean((1, 2, 3))

    torch.testing.assert_close(ratio, factor_N[:, None, None, None].expand_as(ratio))
    assert 0.7 <= factor_N.min() < 0.75
    assert 1.25 < factor_N.max() <= 1.3


def luma(x: torch.Tensor) -> torch.Tensor:
    """Return the grey version of RGB images."""
    return (x * torch.tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1)


def test_contrast_keeps_the_mean_grey() -> None:
    """Contrast moves values about the image's mean grey."""
    x = pixels().float()

    y = jittered(x, contrast=0.5)

    torch.testing.assert_close(luma(y).mean((1, 2)), luma(x).mean((1, 2)))
    assert not torch.allclose(x, y)


def test_saturation_keeps_the_grey_version() -> None:
    """Saturation changes colours and not the grey version; images that are not RGB stay."""
    x = pixels().float()

    y = jittered(x, saturation=0.5)

    torch.testing.assert_close(luma(y), luma(x))
    assert not torch.allclose(x, y)
    assert torch.equal(pixels(channels=1), jittered(pixels(channels=1), saturation=0.5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_waiting_for_the_gpu() -> None:
    """On a GPU nothing is read back to the host."""
    x = pixels().cuda()
    draws = generator(0, device="cuda")
    augment: Callable[..., torch.Tensor] = augmenter(SPECS, mean=(0.5, 0.5, 0.5))
    augment(x, draws)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(x, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
