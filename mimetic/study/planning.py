"""Everything a recipe can get wrong, found before the first trial starts.

Every arm and stage is planned against its model on the meta device, and each data set is opened once.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from mimetic import data
from mimetic.errors import UserError
from mimetic.kernels import outline
from mimetic.plan import Plan, resolve
from mimetic.recipe import Recipe, RecipeError
from mimetic.recipe.data import Data
from mimetic.recipe.errors import Issue
from mimetic.recipe.recipe import Among, Arm
from mimetic.study.observe import check_measurements
from mimetic.study.prospects import prospects
from mimetic.study.sites import rewritten_sites

_SIZE = re.compile(
    r"AssertionError: (Input (height|width|image)|Wrong image (height|width))"
    r"|RuntimeError: (Given input size|Calculated padded input size)"
    r"|ValueError: Input images are"
)
"""How torch, torchvision, timm and our ViT say that an image is too small or of another size."""

_NEEDED = ("model", "data", "train")

Member = tuple[Among, str]
"""An arm or a stage of a recipe, e.g. ("arms", "default")."""

Found = TypeVar("Found")


def plan_arms(recipe: Recipe, *, allow_code: bool = False, seed: int | None = None) -> dict[str, Plan]:
    """Plan every arm, and check every stage the same way.

    Args:
        recipe: The recipe.
        allow_code: Let `type: python` models run.
        seed: Seed of the plans; the recipe's first unless given.

    Returns:
        The plans of the arms that have networks. What rules take from stages that are not trained yet is
        pending in them.

    Raises:
        RecipeError: With the mistakes of all arms and stages at once.
    """
    chosen = recipe.seeds[0] if seed is None else seed

    def plan(family: Among, name: str) -> Plan | None:
        if getattr(recipe, family)[name].learner is not None:
            check_learner(recipe, family, name)
            return None
        return _plan(recipe, family, name, allow_code=allow_code, seed=chosen)

    members: list[Member] = [*(("stages", name) for name in recipe.stages)]
    members += [("arms", name) for name in recipe.arms]
    found = each_of(recipe, members, plan)
    return {name: made for (family, name), made in found.items() if family == "arms" and made is not None}


def each_of(
    recipe: Recipe, members: Iterable[Member], work: Callable[[Among, str], Found]
) -> dict[Member, Found]:
    """Return what `work` finds for each arm or stage, e.g. its plan.

    Args:
        recipe: The recipe.
        members: Arms and stages, e.g. ("arms", "default").
        work: Called with each of them.

    Raises:
        RecipeError: With the mistakes of all of them at once; one that has no place is told at the model.
    """
    found: dict[Member, Found] = {}
    issues: list[Issue] = []
    for family, name in members:
        try:
            found[family, name] = work(family, name)
        except RecipeError as error:
            issues += error.issues
        except UserError as error:
            key = "model" if getattr(recipe, family)[name].learner is None else "learner"
            place = (family, name, key)
            issues.append(Issue(str(error), place, recipe.where(*place), None))
    if issues:
        raise RecipeError(issues)
    return found


def _plan(recipe: Recipe, family: Among, name: str, *, allow_code: bool, seed: int) -> Plan:
    arm: Arm = getattr(recipe, family)[name]
    missing = [part for part in _NEEDED if getattr(arm, part) is None]
    if arm.model is None or arm.data is None or missing:
        said = " and ".join(f"`{part}`" for part in missing)
        message = f"to be run, {family.removesuffix('s')} `{name}` needs {said}"
        raise RecipeError([Issue(message, (family, name), recipe.where(family, name), None)])
    _check_metric(recipe, family, name)
    _check_pairing(recipe, family, name, arm)
    place_in = recipe.place_in(name, among=family)
    sites = rewritten_sites(
        arm.model, arm.surgery, arm.data, allow_code=allow_code, name=name, where=place_in
    )
    _check_size(recipe, family, name, sites.graph.note)
    check_measurements(recipe, family, name, sites.graph)
    return resolve(
        arm,
        sites.graph,
        seed=seed,
        name=name,
        where=place_in,
        harvests=prospects(recipe, arm, allow_code=allow_code),
        rewrites=sites.rewrites,
    )


def _check_size(recipe: Recipe, family: Among, name: str, note: str | None) -> None:
    """Refuse a model whose forward says that images of the data's size are none for it.

    Other forwards that cannot be traced may still run, and their plan says so.
    """
    if note is None or _SIZE.search(note) is None:
        return
    said = note.rpartition("Error: ")[2]
    message = f"{family.removesuffix('s')} `{name}`: the model cannot take the data's images: {said}"
    where = recipe.where(family, name, "model")
    raise RecipeError(
        [Issue(message, (family, name, "model"), where, "set `data.image_size`, or change the model")]
    )


def check_learner(recipe: Recipe, family: Among, name: str) -> tuple[str, ...]:
    """Check an arm or stage that learns without backpropagation, and say what it will do.

    Raises:
        RecipeError: If it lacks data, or images to choose on.
        UserError: If its images are too small for it.
    """
    arm: Arm = getattr(recipe, family)[name]
    assert arm.learner is not None
    place = (family, name, "learner")
    if arm.data is None:
        message = f"to be run, {family.removesuffix('s')} `{name}` needs `data`"
        raise RecipeError([Issue(message, (family, name), recipe.where(family, name), None)])
    if not isinstance(arm.data, Data):
        message = f"{family.removesuffix('s')} `{name}`: a `learner` learns from images, and "
        message += f"`{arm.data.type_name()}` holds {arm.data.holds}"
        raise RecipeError([Issue(message, place, recipe.where(*place), "choose other data")])
    decided = arm.learner.held_out
    if decided is not None and arm.data.held_out == 0:
        message = (
            f"{decided} looks at validation images, and {family.removesuffix('s')} `{name}` holds none out"
        )
        hint = "set `data.val_size`; test images are not for choosing"
        raise RecipeError([Issue(message, place, recipe.where(*place), hint)])
    _check_metric(recipe, family, name)
    shape = data.describe(arm.data)
    assert isinstance(shape, data.DataShape)
    return outline(arm.learner, shape)


def _check_metric(recipe: Recipe, family: Among, name: str) -> None:
    """Refuse to compare by validation images that are not held out."""
    images = getattr(recipe, family)[name].data
    if family == "arms" and recipe.study.metric.startswith("val/") and images.held_out == 0:
        message = f"`{recipe.study.metric}` needs validation images, and arm `{name}` holds none out"
        where = recipe.where("study", "metric")
        raise RecipeError([Issue(message, ("study", "metric"), where, "set `data.val_size`")])


def _check_pairing(recipe: Recipe, family: Among, name: str, arm: Arm) -> None:
    """Refuse a model of images on tokens, one of tokens on images, and images' augmentation on tokens."""
    assert arm.model is not None
    assert arm.data is not None
    holds, kind = arm.data.holds, arm.model.type_name()
    if arm.model.reads not in {None, holds}:
        message = f"{family.removesuffix('s')} `{name}`: `{kind}` reads {arm.model.reads}, "
        message += f"and `{arm.data.type_name()}` holds {holds}"
        where = recipe.where(family, name, "model")
        raise RecipeError(
            [Issue(message, (family, name, "model"), where, "choose another model or other data")]
        )
    if holds != "images" and arm.train is not None and (arm.train.mixup or arm.train.cutmix):
        message = f"{family.removesuffix('s')} `{name}`: `mixup` and `cutmix` mix images, not {holds}"
        where = recipe.where(family, name, "train")
        raise RecipeError([Issue(message, (family, name, "train"), where, "remove them")])


def open_data(recipe: Recipe) -> dict[str, str]:
    """Load each data set once, so that a missing one is said before anything starts.

    Returns:
        The digest of the images of each arm and stage, by `arms/name` and `stages/name`.

    Raises:
        RecipeError: If a set is missing or damaged; says where to put it.
    """
    digests: dict[str, str] = {}
    opened: dict[str, str] = {}
    for family in ("arms", "stages"):
        for name, arm in getattr(recipe, family).items():
            key = arm.data.model_dump_json()
            if key not in opened:
                try:
                    opened[key] = data.load(arm.data).digest
                except UserError as error:
                    where = recipe.where(family, name, "data")
                    raise RecipeError([Issue(str(error), (family, name, "data"), where, None)]) from None
            digests[f"{family}/{name}"] = opened[key]
    return digests
