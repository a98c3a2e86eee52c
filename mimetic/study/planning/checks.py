"""What of an arm or a stage does not go together, before its rules are looked at.

Each check raises a `RecipeError` with the place and a repair. What is left open is not checked: an arm may
be planned without data or training.
"""

import re

from mimetic.config.address import ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.data.config import ImageData
from mimetic.data.load import describe_dataset
from mimetic.data.shapes import ImageShape
from mimetic.kernels.outline import outline
from mimetic.recipe.recipe import Arm, Recipe

_SIZE = re.compile(
    r"AssertionError: (Input (height|width|image)|Wrong image (height|width))"
    r"|RuntimeError: (Given input size|Calculated padded input size)"
    r"|ValueError: Input images are"
)
"""How torch, torchvision, timm and our ViT say that an image is too small or of another size."""


def check_parts(arm: Arm, at: ConfigPath) -> None:
    """Refuse to run what lacks a model, data or training, or data to learn from without them."""
    parts = ("model", "data", "train") if arm.learner is None else ("data",)
    missing = [part for part in parts if getattr(arm, part) is None]
    if missing:
        said = " and ".join(f"`{part}`" for part in missing)
        raise RecipeError([at.issue(f"to be run, {at} needs {said}")])


def check_metric(recipe: Recipe, name: str) -> None:
    """Refuse to compare an arm by validation images that are not held out."""
    examples, metric = recipe.arms[name].data, recipe.study.metric
    if metric.startswith("val/") and examples is not None and examples.num_validation == 0:
        message = f"`{metric}` needs validation images, and arm `{name}` holds none out"
        place = ("study", "metric")
        raise RecipeError([Issue(message, place, recipe.where(*place), "set `data.val_size`")])


def check_pairing(arm: Arm, at: ConfigPath) -> None:
    """Refuse a model of images on tokens, one of tokens on images, and images' augmentation on tokens."""
    if arm.model is None or arm.data is None:
        return
    holds = arm.data.holds
    if arm.model.reads not in {None, holds}:
        message = f"{at}: `{arm.model.type_name()}` reads {arm.model.reads}, "
        message += f"and `{arm.data.type_name()}` holds {holds}"
        raise RecipeError([at.issue(message, "model", hint="choose another model or other data")])
    if holds != "images" and arm.train is not None and (arm.train.mixup or arm.train.cutmix):
        message = f"{at}: `mixup` and `cutmix` mix images, not {holds}"
        raise RecipeError([at.issue(message, "train", hint="remove them")])


def check_size(note: str | None, at: ConfigPath) -> None:
    """Refuse a model whose forward says, in the note of its graph, that the data's images are none for it.

    Other forwards that cannot be traced may still run, and their plan says so.
    """
    if note is not None and _SIZE.search(note) is not None:
        message = f"{at}: the model cannot take the data's images: {note.rpartition('Error: ')[2]}"
        raise RecipeError([at.issue(message, "model", hint="set `data.image_size`, or change the model")])


def check_learner(arm: Arm, at: ConfigPath) -> tuple[str, ...]:
    """Check an arm or stage that learns without backpropagation, and say what it will do.

    Raises:
        RecipeError: If it lacks data, or images to choose on.
        UserError: If its images are too small for it.
    """
    check_parts(arm, at)
    assert arm.learner is not None
    if not isinstance(arm.data, ImageData):
        assert arm.data is not None
        message = f"{at}: a `learner` learns from images, and `{arm.data.type_name()}` holds {arm.data.holds}"
        raise RecipeError([at.issue(message, "learner", hint="choose other data")])
    decided = arm.learner.held_out
    if decided is not None and arm.data.num_validation == 0:
        message = f"{decided} looks at validation images, and {at} holds none out"
        hint = "set `data.val_size`; test images are not for choosing"
        raise RecipeError([at.issue(message, "learner", hint=hint)])
    shape = describe_dataset(arm.data)
    assert isinstance(shape, ImageShape)
    return outline(arm.learner, shape)
