"""The calls for your own training loop: plan a recipe against a model, and initialize with it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mimetic.config.suggest import listed
from mimetic.config.text.tree import shown
from mimetic.covariance.network import TrainingImages
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites
from mimetic.plans.own_values import with_own_values
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import Source, load
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.sources.collect import needed_inputs, planned_inputs
from mimetic.sources.trained import images_needed
from mimetic.streams import as_seed
from mimetic.surgery.rewrite import rewrite_network

Example = Tensor | tuple[Any, ...] | dict[str, Any]
"""An input of a model, or the positional or the named arguments of its `forward`."""


def plan(
    model: nn.Module,
    recipe: Source,
    *,
    seed: int = 0,
    arm: str | None = None,
    example: Example | None = None,
    images: Tensor | None = None,
) -> Plan:
    """Compile a recipe against a model; nothing is written.

    Where the recipe has a `surgery`, the plan is that of the model after it; `initialize` operates on the
    model itself.

    Args:
        model: Any module, on any device, the meta device included.
        recipe: Path of a recipe, a mapping of the same form, or a loaded recipe.
        seed: Seed of the run.
        arm: The arm; needed where the recipe has several.
        example: An input (N, …), or arguments, for tracing the order of execution; guessed from the model
            unless given.
        images: Training images (N, …) as the model sees them, for the scale `lsuv`.

    Returns:
        The plan: readable, hashable, `plan.apply(model)` writes it.

    Raises:
        RecipeError: With every mistake at once, each with its place and a repair.
        UserError: If the recipe has no such arm, or an argument is of another kind.
    """
    loaded, seed = _loaded(model, recipe), as_seed(seed)
    name = choose_arm(loaded, arm)
    looked_at = _without_values(model) if loaded.arms[name].surgery else model
    return _operated(looked_at, loaded, name, seed=seed, example=example, images=images)


def _loaded(model: nn.Module, recipe: Source) -> Recipe:
    """Load a recipe for a model.

    Raises:
        UserError: If the model is none, as in a call with the arguments exchanged.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"the model comes first, then the recipe: expected a torch.nn.Module, found {shown(model)}",
            code="MIM-A022",
        )
    return load(recipe)


def _images(arm: Arm, images: Tensor | None) -> dict[str, TrainingImages]:
    """Return what an arm's rules measure on images: the first so many of them."""
    if images is None:
        return {}
    return {
        key: TrainingImages(images[: images_needed(spec)])
        for key, spec in needed_inputs(arm).items()
        if spec.needs == "images"
    }


def initialize(
    model: nn.Module,
    recipe: Source,
    *,
    seed: int = 0,
    arm: str | None = None,
    example: Example | None = None,
    progress: Callable[[int, int], None] | None = None,
    images: Tensor | None = None,
) -> Plan:
    """Initialize a model in place by a recipe, verify the result, and return the plan.

    Layers that the recipe's `surgery` matches are replaced first, so make the optimizer afterwards.
    Parameters that no rule matches keep their values. The values drawn depend on the seed and the
    parameters' names alone, so they are the same on every machine and for every number of threads.

    Args:
        model: Any module on a real device.
        recipe: Path of a recipe, a mapping of the same form, or a loaded recipe.
        seed: Seed of the run.
        arm: The arm; needed where the recipe has several.
        example: An input (N, …), or arguments, for tracing the order of execution; guessed from the model
            unless given.
        progress: Called with the number of draws done and of all, for your own progress bar.
        images: Training images (N, …) as the model sees them, for the scale `lsuv`.

    Raises:
        RecipeError: With every mistake at once, before a tensor is touched.
        RunError: If the written values miss the plan's prediction.
    """
    loaded, seed = _loaded(model, recipe), as_seed(seed)
    name = choose_arm(loaded, arm)
    if loaded.arms[name].surgery:  # a mistake leaves the model as it was
        plan(model, loaded, seed=seed, arm=name, example=example, images=images)
    made = _operated(model, loaded, name, seed=seed, example=example, images=images)
    made.apply(model, progress=progress)
    return made


def _operated(
    model: nn.Module,
    recipe: Recipe,
    name: str,
    *,
    seed: int,
    example: Example | None,
    images: Tensor | None,
) -> Plan:
    """Rewrite a model by an arm's surgery, and plan it."""
    arm, at = recipe.arms[name], recipe.address(name)
    rewrites = rewrite_network(model, arm.surgery, seed=seed, example=example, at=at)
    stored = planned_inputs(recipe, arm, at=at, stored_only=True)
    made = resolve(
        arm,
        find_sites(model, example),
        seed=seed,
        at=at,
        harvests={**stored, **_images(arm, images)},
        rewrites=rewrites,
    )
    return with_own_values(made, model)


def _without_values(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the meta device; its tensors are not copied."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    memo |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    return copy.deepcopy(model, memo)


def choose_arm(recipe: Recipe, arm: str | None) -> str:
    """Return the given arm, or the only one."""
    names = listed(recipe.arms)
    if arm is None:
        if len(recipe.arms) > 1:
            raise UserError(
                f"recipe `{recipe.name}` has several arms, choose one with `arm`: {names}", code="MIM-A020"
            )
        return next(iter(recipe.arms))
    if arm not in recipe.arms:
        raise UserError(f"recipe `{recipe.name}` has no arm `{arm}` (arms: {names})", code="MIM-A021")
    return arm
