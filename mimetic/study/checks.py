"""What of an arm or a stage does not go together, before its rules are looked at.

Each check takes a recipe and a member of it, e.g. ("arms", "default"), and raises a `RecipeError` with the
place and a repair. What a recipe leaves open is not checked: it may be planned without data or training.
"""

import re
from collections.abc import Sequence

from mimetic import data
from mimetic.kernels import outline
from mimetic.recipe import Issue, Recipe, RecipeError
from mimetic.recipe.data import Data
from mimetic.recipe.errors import Step
from mimetic.recipe.recipe import Among, Arm

_SIZE = re.compile(
    r"AssertionError: (Input (height|width|image)|Wrong image (height|width))"
    r"|RuntimeError: (Given input size|Calculated padded input size)"
)
"""How torch, torchvision and timm say that an image is too small or of another size."""


def check_parts(recipe: Recipe, family: Among, name: str) -> None:
    """Refuse to run what lacks a model, data or training."""
    arm: Arm = getattr(recipe, family)[name]
    missing = [part for part in ("model", "data", "train") if getattr(arm, part) is None]
    if missing:
        said = " and ".join(f"`{part}`" for part in missing)
        raise _wrong(recipe, (family, name), f"to be run, {_noun(family)} `{name}` needs {said}")


def check_metric(recipe: Recipe, family: Among, name: str) -> None:
    """Refuse to compare by validation images that are not held out."""
    examples = getattr(recipe, family)[name].data
    compared = family == "arms" and recipe.study.metric.startswith("val/")
    if compared and examples is not None and examples.held_out == 0:
        message = f"`{recipe.study.metric}` needs validation images, and arm `{name}` holds none out"
        raise _wrong(recipe, ("study", "metric"), message, "set `data.val_size`")


def check_pairing(recipe: Recipe, family: Among, name: str) -> None:
    """Refuse a model of images on tokens, one of tokens on images, and images' augmentation on tokens."""
    arm: Arm = getattr(recipe, family)[name]
    if arm.model is None or arm.data is None:
        return
    holds = arm.data.holds
    if arm.model.reads not in {None, holds}:
        message = f"{_noun(family)} `{name}`: `{arm.model.type_name()}` reads {arm.model.reads}, "
        message += f"and `{arm.data.type_name()}` holds {holds}"
        raise _wrong(recipe, (family, name, "model"), message, "choose another model or other data")
    if holds != "images" and arm.train is not None and (arm.train.mixup or arm.train.cutmix):
        message = f"{_noun(family)} `{name}`: `mixup` and `cutmix` mix images, not {holds}"
        raise _wrong(recipe, (family, name, "train"), message, "remove them")


def check_size(recipe: Recipe, family: Among, name: str, note: str | None) -> None:
    """Refuse a model whose forward says, in the note of its graph, that the data's images are none for it.

    Other forwards that cannot be traced may still run, and their plan says so.
    """
    if note is not None and _SIZE.search(note) is not None:
        said = note.rpartition("Error: ")[2]
        message = f"{_noun(family)} `{name}`: the model cannot take the data's images: {said}"
        hint = "set `data.image_size`, or change the model"
        raise _wrong(recipe, (family, name, "model"), message, hint)


def check_learner(recipe: Recipe, family: Among, name: str) -> tuple[str, ...]:
    """Check an arm or stage that learns without backpropagation, and say what it will do.

    Raises:
        RecipeError: If it lacks data, or images to choose on.
        UserError: If its images are too small for it.
    """
    arm: Arm = getattr(recipe, family)[name]
    assert arm.learner is not None
    place, noun = (family, name, "learner"), _noun(family)
    if arm.data is None:
        raise _wrong(recipe, (family, name), f"to be run, {noun} `{name}` needs `data`")
    if not isinstance(arm.data, Data):
        message = f"{noun} `{name}`: a `learner` learns from images, and "
        message += f"`{arm.data.type_name()}` holds {arm.data.holds}"
        raise _wrong(recipe, place, message, "choose other data")
    decided = arm.learner.held_out
    if decided is not None and arm.data.held_out == 0:
        message = f"{decided} looks at validation images, and {noun} `{name}` holds none out"
        raise _wrong(recipe, place, message, "set `data.val_size`; test images are not for choosing")
    check_metric(recipe, family, name)
    shape = data.describe(arm.data)
    assert isinstance(shape, data.DataShape)
    return outline(arm.learner, shape)


def _noun(family: Among) -> str:
    return family.removesuffix("s")


def _wrong(recipe: Recipe, place: Sequence[Step], message: str, hint: str | None = None) -> RecipeError:
    return RecipeError([Issue(message, tuple(place), recipe.where(*place), hint)])
