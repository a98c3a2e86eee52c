"""Every shipped recipe resolves, and to the plan that was recorded: a change of meaning shows in a diff.

To record anew after a change that is meant: `MIMETIC_RECORD=1 pytest` with this file.
"""

import os
from pathlib import Path

import pytest

from mimetic.config.address import Among
from mimetic.plans.plan import Plan, describe
from mimetic.recipe.load import load
from mimetic.recipe.recipe import Recipe
from mimetic.study.planning.arms import plan_recipe

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
SLOW = {
    "papers/2301.11360/kernels-cifar10.yaml",
    "papers/2301.11360/table1-cifar100.yaml",
    "papers/2301.11360/table1-fashion-mnist.yaml",
    "papers/2301.11360/table1-svhn.yaml",
    "papers/2311.18823/vit-cifar100.yaml",
}
"""Recipes that take seconds to resolve and have a sibling that shows the same."""


def text(plans: dict[str, Plan]) -> str:
    """Return plans as text: each plan's hash, what each rewrite did, each parameter a rule claims."""
    lines = []
    for name, plan in plans.items():
        lines.append(f"{name}: {len(plan.entries)} parameters, plan {plan.hash}")
        for rewrite in dict.fromkeys(one.rewrite for one in plan.rewrites):
            done = [one for one in plan.rewrites if one.rewrite == rewrite]
            lines.append(f"  {rewrite}: {done[0].type} {dict(done[0].arguments)} of {len(done)} layers")
        for entry in plan.entries:
            if entry.rule is not None:
                std = "" if entry.moments is None else f" std={entry.moments.std:.6g}"
                frozen = " frozen" if entry.frozen else ""
                shape = "×".join(map(str, entry.shape))
                lines.append(f"  {entry.parameter} {shape} {entry.rule}: {describe(entry)}{std}{frozen}")
    return "\n".join(lines) + "\n" if lines else ""


def learners(recipe: Recipe, told: dict[tuple[Among, str], tuple[str, ...]]) -> str:
    """Return what the learners of arms and stages will do, as text."""
    lines = []
    for (family, name), does in told.items():
        kind = getattr(recipe, family)[name].learner.type_name()
        lines += [f"{family}/{name}: {kind}", *(f"  {line}" for line in does)]
    return "\n".join(lines) + "\n" if lines else ""


def test_there_are_recipes() -> None:
    """The search below is not vacuous."""
    assert len(RECIPES) >= 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in (path.relative_to(ROOT / "recipes").as_posix() for path in RECIPES)
    ],
)
def test_recipe_resolves_to_its_golden_plan(name: str) -> None:
    """Arms, rules, arguments, expected deviations, seeds and freezing are those recorded."""
    golden = (GOLDEN / name).with_suffix(".txt")
    recipe = load(ROOT / "recipes" / name)
    found = plan_recipe(recipe, to_run=True)
    actual = text(found.plans) + learners(recipe, found.learners)
    if os.environ.get("MIMETIC_RECORD"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(actual, encoding="utf-8")

    assert actual == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT / "recipes").as_posix())
def test_recipe_says_how_it_is_run(path: Path) -> None:
    """Each recipe carries the editor's modeline, a headline and the exact command."""
    lines = path.read_text(encoding="utf-8").splitlines()

    assert lines[0].startswith("# yaml-language-server: $schema=")
    assert lines[1].startswith("# ")
    assert any(line.startswith("#   ") and "mimetic run recipes/" in line for line in lines[:8])
    assert (path.parent / lines[0].partition("=")[2]).resolve() == ROOT / "docs" / "recipe.schema.json"
