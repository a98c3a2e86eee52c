"""Check whether the parts of an arm or a stage fit together, before its rules are resolved.

Each check raises a `RecipeError` with the position and a repair. An arm may be planned without data or
training, so missing parts are an error only where it is to be run.
"""

import re

from mimetic.config.address import ConfigPath
from mimetic.config.errors import RecipeError
from mimetic.data.config import DataSection, ImageData
from mimetic.data.load import describe_dataset
from mimetic.data.shapes import DataShape, ImageShape
from mimetic.errors import UserError
from mimetic.kernels.learn import plan_learner
from mimetic.recipe.recipe import Arm

_WRONG_SIZE = re.compile(
    r"AssertionError: (Input (height|width|image)|Wrong image (height|width))"
    r"|RuntimeError: (Given input size|Calculated padded input size)"
    r"|ValueError: Input images are"
)
"""How torch, torchvision, timm and our ViT report an image that is too small or of another size."""


def require(arm: Arm, at: ConfigPath, *parts: str) -> None:
    """Refuse to run an arm or a stage without some of its parts, e.g. `data`.

    Raises:
        RecipeError: If one of them is missing.
    """
    names = " and ".join(f"`{part}`" for part in parts if getattr(arm, part) is None)
    if names:
        raise RecipeError([at.issue(f"to be run, {at} needs {names}", code="MIM-Y301")])


def required_data(arm: Arm, at: ConfigPath) -> DataSection:
    """Return the data of an arm that is to be run.

    Raises:
        RecipeError: If it has none.
    """
    require(arm, at, "data")
    assert arm.data is not None
    return arm.data


def check_pairing(arm: Arm, at: ConfigPath) -> None:
    """Refuse a model of images on tokens, one of tokens on images, and image augmentation on tokens."""
    if arm.model is None or arm.data is None:
        return
    provides = arm.data.provides
    if arm.model.reads not in {None, provides}:
        text = (
            f"{at}: `{arm.model.type_name()}` reads {arm.model.reads}, "
            f"but `{arm.data.type_name()}` provides {provides}"
        )
        raise RecipeError(
            [at.issue(text, "model", hint="choose another model or other data", code="MIM-Y303")]
        )
    if provides != "images" and arm.train is not None and (arm.train.mixup or arm.train.cutmix):
        text = f"{at}: `mixup` and `cutmix` mix images, not {provides}"
        raise RecipeError([at.issue(text, "train", hint="remove them", code="MIM-Y304")])


def check_size(note: str | None, at: ConfigPath) -> None:
    """Refuse a model whose forward cannot take the data's images, according to the note of its graph.

    Other forwards that cannot be traced may still run, and their plan shows the note.
    """
    if note is not None and _WRONG_SIZE.search(note) is not None:
        text = f"{at}: the model cannot take the data's images: {note.rpartition('Error: ')[2]}"
        hint = "set `data.image_size`, or change the model"
        raise RecipeError([at.issue(text, "model", hint=hint, code="MIM-Y305")])


def shape_of(data: DataSection, at: ConfigPath) -> DataShape:
    """Return the shape of the data of an arm or a stage.

    Raises:
        RecipeError: If they are missing or damaged.
    """
    try:
        return describe_dataset(data)
    except UserError as error:
        raise RecipeError([at.issue(str(error), "data", code=error.code)]) from error


def check_learner(arm: Arm, at: ConfigPath) -> tuple[str, ...]:
    """Check an arm or stage that learns without backpropagation, and describe what it will do.

    Raises:
        RecipeError: If it lacks data, or validation images to choose on.
        UserError: If its images are too small.
    """
    data = required_data(arm, at)
    assert arm.learner is not None
    if not isinstance(data, ImageData):
        text = f"{at}: a `learner` learns from images, but `{data.type_name()}` provides {data.provides}"
        raise RecipeError([at.issue(text, "learner", hint="choose other data", code="MIM-Y306")])
    selection = arm.learner.validation_use
    if selection is not None and data.num_validation == 0:
        text = f"{selection} needs validation images, and {at} has none"
        hint = "set `data.val_size`; test images are not for selection"
        raise RecipeError([at.issue(text, "learner", hint=hint, code="MIM-Y307")])
    shape = shape_of(data, at)
    assert isinstance(shape, ImageShape)
    return plan_learner(arm.learner, shape).description
