"""RandAugment: each operation is torchvision's, each image has its own, and the draws are keyed."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as tv

from mimetic.data.rand_augment import OPERATIONS, _moved, rand_augment
from mimetic.errors import UserError

NAMES = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


def photos(count: int = 6, side: int = 32, seed: int = 0) -> Tensor:
    """Return smooth coloured uint8 images that use most levels."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(side, side), mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def magnitude(name: str, strength: float, side: int) -> float:
    """Return what torchvision's table holds for an operation."""
    return {
        "shear_x": 0.3 * strength,
        "shear_y": 0.3 * strength,
        "translate_x": 150.0 / 331.0 * side * strength,
        "translate_y": 150.0 / 331.0 * side * strength,
        "rotate": 30.0 * strength,
        "posterize": 8 - round(4 * strength),
        "solarize": 255.0 * (1.0 - strength),
    }.get(name, 0.9 * strength)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_each_operation_is_torchvisions(name: str, sign: float, strength: float) -> None:
    """The same pixels but for rounding: a level of colour, and a few pixels on the edges of a moved image."""
    images = photos()
    signed = sign if name not in {"posterize", "solarize", "autocontrast", "equalize"} else 1.0
    level = signed * magnitude(name, strength, 32)
    expected = torch.stack(
        [_apply_op(image, NAMES[name], level, InterpolationMode.NEAREST, None) for image in images]
    )
    found = OPERATIONS[name](images, torch.full((len(images),), sign), strength)
    off = (found.int() - expected.int()).abs()
    assert float((off > 1).float().mean()) < 0.01
    assert found.dtype == torch.uint8


@pytest.mark.parametrize("shapes", [((4, 1, 7), (1, 5, 1)), ((1, 1, 7), (4, 5, 1)), ((1, 1, 7), (1, 5, 1))])
def test_places_are_given_as_far_as_they_differ(shapes: tuple[tuple[int, ...], ...]) -> None:
    """A row or a column for all images moves them as its copies do."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 5, 7), dtype=torch.uint8, generator=draws)
    column, row = (10.0 * torch.rand(shape, generator=draws) - 2.0 for shape in shapes)

    assert torch.equal(
        _moved(images, column.expand(4, 5, 7), row.expand(4, 5, 7)), _moved(images, column, row)
    )


def test_flat_images_stay() -> None:
    """Nothing is divided by a range or a count that is zero."""
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    for name in ("autocontrast", "equalize", "contrast", "color", "sharpness"):
        assert torch.equal(OPERATIONS[name](flat, torch.ones(2), 1.0), flat)


def test_every_image_has_its_own_draw_and_seeds_repeat() -> None:
    """Equal seeds give equal batches, others do not, and the images of a batch are treated differently."""
    same = photos(1).expand(64, -1, -1, -1)
    first = rand_augment(same, torch.Generator().manual_seed(5), num_ops=2, magnitude=15)
    again = rand_augment(same, torch.Generator().manual_seed(5), num_ops=2, magnitude=15)
    other = rand_augment(same, torch.Generator().manual_seed(6), num_ops=2, magnitude=15)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) > 40


def test_no_strength_changes_little_but_the_contrast() -> None:
    """At strength 0 all but autocontrast, equalize and solarize leave an image alone."""
    images = photos()
    for name, operation in OPERATIONS.items():
        if name not in {"autocontrast", "equalize", "solarize"}:
            assert torch.equal(operation(images, torch.ones(len(images)), 0.0), images), name


def test_grey_and_float_images() -> None:
    """Grey images pass every operation; floats are refused, since the operations count levels."""
    grey = photos()[:, :1]
    for operation in OPERATIONS.values():
        assert operation(grey, torch.ones(len(grey)), 0.7).shape == grey.shape
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D061"):
        rand_augment(grey.float(), torch.Generator(), num_ops=1, magnitude=9)


def test_equalize_agrees_exactly() -> None:
    """Histograms are counted for all images at once, with torchvision's rounding."""
    images = photos(seed=3)
    expected = torch.stack([tv.equalize(image) for image in images])
    assert torch.equal(expected, OPERATIONS["equalize"](images, torch.ones(len(images)), 1.0))
