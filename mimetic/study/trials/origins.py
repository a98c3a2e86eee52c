"""The origins of a recipe's rules: how a trained network is called, and the one of a finished trial."""

from pathlib import Path

from torch import nn

from mimetic.config.registry import Component
from mimetic.covariance.config import Measured
from mimetic.data.load import describe_dataset
from mimetic.errors import UserError
from mimetic.initializers.config import FromNetwork
from mimetic.models.checkpoint import load_weights
from mimetic.models.config import Model, Timm, Torchvision
from mimetic.recipe.recipe import Arm
from mimetic.recipe.saved import read_recipe
from mimetic.surgery.network import build_network
from mimetic.train.checkpoint import WEIGHTS


def origin_name(spec: Component) -> str:
    """Return how plans and messages call the network a section takes from."""
    return spec.from_.display_name if isinstance(spec, Measured | FromNetwork) else "the training images"


def origin_classes(model: Model, examples: int) -> int:
    """Return the number of outputs of the `model` of an origin.

    Where the model does not say: ImageNet's for one of a library, as its weights have; for one of ours,
    the number of classes of the arm's examples.
    """
    if model.num_classes is not None:
        return model.num_classes
    return 1000 if isinstance(model, Torchvision | Timm) else examples


def trial_arm(folder: Path) -> Arm:
    """Return the arm that the folder of a finished trial belongs to.

    Raises:
        UserError: If the folder is none of a finished trial.
    """
    recipe_file = folder.parents[1] / "resolved.yaml" if len(folder.parents) > 1 else folder
    if not (folder / WEIGHTS).is_file() or not recipe_file.is_file():
        raise UserError(
            f"{folder} is not the folder of a finished trial: it needs {WEIGHTS}, and its study "
            "resolved.yaml; give a folder like mlruns/studies/<recipe>/<time>/<arm>/seed-0"
        )
    recipe = read_recipe(recipe_file.parent)
    if folder.parent.name not in recipe.arms:
        raise UserError(f"{folder}: its study has no arm `{folder.parent.name}`")
    return recipe.arms[folder.parent.name]


def trial_network(folder: Path, *, allow_code: bool = False) -> tuple[nn.Module, Arm]:
    """Return the trained network of a finished trial, and its arm.

    Raises:
        UserError: If the folder is none of a finished trial, or its arm has no network.
    """
    arm = trial_arm(folder)
    if arm.model is None or arm.data is None:
        raise UserError(f"{folder} has no network; give the folder of a trial that trains one")
    shape = describe_dataset(arm.data)
    built = build_network(arm.model, arm.surgery, shape=shape, seed=0, allow_code=allow_code).model
    load_weights(built, folder / WEIGHTS)
    return built, arm
