"""Sweeps: one arm per combination of values, with the errors at the values."""

from typing import Any

import pytest

from mimetic.config.errors import RecipeError
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import loads
from mimetic.recipe.recipe import Recipe

TEXT = """recipe: 1
model: {type: convmixer, dim: 8, depth: 2}
data: {type: digits, val_size: 100}
train: {epochs: 1, optimizer: {type: adamw, lr: 0.01}}
seeds: 2
study: STUDY
arms:
  default: {}
  closed:
    init:
      - {id: filters, match: {kind: depthwise_conv}, covariance: closed_form}
    sweep: SWEEP
"""
GRID = "{train.optimizer.lr: [0.001, 0.02], init.filters.covariance.width: [0.2, {start: 0.1}]}"


def swept(sweep: str = GRID, study: str = "{}", **options: Any) -> Recipe:
    """Load the recipe above."""
    return loads(TEXT.replace("SWEEP", sweep).replace("STUDY", study), **options)


def values(recipe: Recipe, arm: str) -> tuple[float, float]:
    """Return the learning rate and the starting width of an arm."""
    train, width = recipe.arms[arm].train, recipe.arms[arm].init[0].covariance
    assert train is not None
    return train.optimizer.lr, width.width.start  # type: ignore[attr-defined, union-attr]


def test_a_grid_takes_the_place_of_the_arm() -> None:
    """Every combination is an arm, named by its values; maps and lists are numbered."""
    recipe = swept()
    found = {name: values(recipe, name) for name in recipe.arms if name != "default"}
    assert found == {
        "closed-lr0.001-width1": (0.001, 0.2),
        "closed-lr0.001-width2": (0.001, 0.1),
        "closed-lr0.02-width1": (0.02, 0.2),
        "closed-lr0.02-width2": (0.02, 0.1),
    }
    assert {arm.candidate_of for arm in recipe.arms.values()} == {None}


def test_with_a_selection_the_arm_stays() -> None:
    """Candidates name the arm they are for, and the resolved recipe loads back."""
    recipe = swept(study="{select: {seeds: [100]}}")
    assert {name for name, arm in recipe.arms.items() if arm.candidate_of is None} == {"default", "closed"}
    assert list(recipe.candidates()) == ["closed"]
    assert len(recipe.candidates()["closed"]) == 4
    assert loads(resolved(recipe)) == recipe
    assert recipe.size == "2 arms × 2 seeds, after 4 candidates × 1 seed"


def test_arms_do_not_inherit_a_sweep() -> None:
    """An arm that extends a swept one starts from the values that it has without a sweep."""
    text = TEXT.replace("SWEEP", GRID).replace("STUDY", "{}") + "  frozen: {extends: closed}\n"
    recipe = loads(text)
    assert values(recipe, "frozen") == (0.01, 0.15)
    assert len(recipe.arms) == 6


def test_overrides_reach_the_candidates() -> None:
    """Those of the swept arm by inheritance, of a candidate by its name, with `*` all that fit."""
    recipe = swept(overrides=["arms.closed.train.epochs=5", "arms.closed-lr0.02-width1.train.epochs=7"])
    assert [arm.train.epochs for arm in recipe.arms.values() if arm.train] == [1, 5, 5, 7, 5]
    recipe = swept(overrides=["arms.closed-lr0.02*.train.epochs=9"])
    assert [arm.train.epochs for arm in recipe.arms.values() if arm.train] == [1, 1, 1, 9, 9]


@pytest.mark.parametrize(
    ("sweep", "study", "code", "column"),
    [
        ("5", "{}", "MIM-R004", 12),
        ("{train.optimizer.lr: []}", "{}", "MIM-R004", 33),
        ("{train.optimizer.lr: 1}", "{}", "MIM-R004", 33),
        ("{train.optimizer.lr: [0.1, -1]}", "{}", "MIM-R006", 39),
        ("{train.optimizer.rate: [0.1]}", "{}", "MIM-R001", 36),
        ("{init.nothing.scale: [1, 2]}", "{}", "MIM-R074", 34),
        ("{seeds: [1]}", "{}", "MIM-R001", 21),
        (f"{{model.dim: {list(range(1, 202))}}}", "{}", "MIM-R046", 12),
    ],
)
def test_errors_are_at_the_values(sweep: str, study: str, code: str, column: int) -> None:
    """Position and code of each kind of mistake in a sweep."""
    with pytest.raises(RecipeError) as caught:
        swept(sweep, study)
    first = next(issue for issue in caught.value.issues if issue.code == code)
    assert first.mark is not None
    assert (first.mark.line, first.mark.column) == (12, column)


@pytest.mark.parametrize(
    ("sweep", "study", "code"),
    [
        ("{}", "{select: {seeds: [100]}}", "MIM-R020"),
        (GRID, "{select: {seeds: [1]}}", "MIM-R027"),
        (GRID, "{select: {seeds: [100], metric: test/acc}}", "MIM-Y081"),
    ],
)
def test_a_selection_needs_candidates_seeds_and_validation_data(sweep: str, study: str, code: str) -> None:
    """What would select from nothing, or look at the data or the seeds of the comparison, is refused."""
    with pytest.raises(RecipeError) as caught:
        swept(sweep, study)
    assert [issue.code for issue in caught.value.issues] == [code]


@pytest.mark.parametrize(
    ("study", "at", "message"),
    [
        ("{metric: val/acc}", "metric", "`val/acc` needs validation images, and 5 arms have none"),
        ("{select: {seeds: [100]}}", "select", "`val/acc` needs validation images, and 4 arms have none"),
        (
            "{metric: val/acc, select: {seeds: [100]}}",
            "metric",
            "`val/acc` needs validation images, and 2 arms have none",
        ),
        (
            "{halving: {metric: val/loss}}",
            "halving",
            "`val/loss` needs validation images, and 4 arms have none",
        ),
    ],
)
def test_what_decides_on_validation_data_needs_some(study: str, at: str, message: str) -> None:
    """Arms without validation images are one mistake, however many candidates they have."""
    with pytest.raises(RecipeError) as caught:
        loads(TEXT.replace("SWEEP", GRID).replace("STUDY", study).replace("val_size: 100", "val_size: 0"))
    (issue,) = caught.value.issues
    assert (issue.code, issue.path, issue.message) == ("MIM-R099", ("study", at), message)
    assert issue.mark is not None
    assert issue.mark.line == 6


def test_a_candidate_needs_its_arm_and_a_selection() -> None:
    """`candidate_of` written by hand names an arm and needs `study.select`."""
    text = TEXT.replace("SWEEP", "{}") + "  other: {candidate_of: NAME}\n"
    for study, name, code in (
        ("{}", "closed", "MIM-R018"),
        ("{select: {seeds: [100]}}", "nothing", "MIM-R019"),
        ("{select: {seeds: [100]}}\nbaseline: other", "closed", "MIM-R028"),
    ):
        with pytest.raises(RecipeError) as caught:
            loads(text.replace("STUDY", study).replace("NAME", name))
        assert [issue.code for issue in caught.value.issues] == [code]


def test_two_arms_of_one_name_are_an_error() -> None:
    """A candidate never replaces an arm that is written."""
    text = TEXT.replace("SWEEP", "{model.dim: [8, 16]}").replace("STUDY", "{}") + "  closed-dim8: {}\n"
    with pytest.raises(RecipeError) as caught:
        loads(text)
    assert [issue.code for issue in caught.value.issues] == ["MIM-R047"]
