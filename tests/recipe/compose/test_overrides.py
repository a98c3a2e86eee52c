"""Overrides from the command line."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimetic.config.errors import FilePosition, RecipeError
from mimetic.recipe.load import loads
from mimetic.recipe.recipe import Recipe

TEXT = r"""recipe: 1
model: {type: convmixer, dim: 64}
train: {epochs: 3}
init:
  - {id: head, match: {kind: linear}, init: zeros}
arms:
  default: {}
  closed-form:
    init:
      - {id: filters, match: {layer: 'a', kind: conv}, covariance: closed_form}
  v1.2:
    extends: closed-form
    init:
      - {id: f.1, match: b, init: ones}
"""


def over(*overrides: str) -> Recipe:
    """Load the recipe above with overrides."""
    return loads(TEXT, overrides=overrides)


def rule(recipe: Recipe, arm: str, name: str) -> dict[str, Any]:
    """Return a rule of an arm as plain values."""
    return next(r for r in recipe.arms[arm].init if r.id == name).model_dump(by_alias=True)


def train(recipe: Recipe, arm: str = "default") -> dict[str, Any]:
    """Return an arm's training as plain values."""
    section = recipe.arms[arm].train
    assert section is not None
    return section.model_dump()


def test_for_all_arms() -> None:
    """A value at the top reaches every arm."""
    assert {train(over("train.epochs=5"), arm)["epochs"] for arm in over().arms} == {5}


def test_for_one_arm() -> None:
    """A value of an arm reaches it and those that extend it."""
    recipe = over("arms.closed-form.train.epochs=5")
    assert [train(recipe, arm)["epochs"] for arm in recipe.arms] == [3, 5, 5]


POOL = (
    "train.optimizer.type=sgd",
    "train.optimizer.lr=0.3",
    "train.optimizer.momentum=0.5",
    "train.optimizer={betas: [0.8, 0.9]}",
    "train={epochs: 4, optimizer: {type: adamw, lr: 0.2}}",
    "train.epochs=5",
    "train.epochs=x",
    "model.type=vit",
    "model.depth=2",
    "model.dim=32",
    "data.type=cifar100",
    "data.train_size=10",
    "learner=laplace",
    "init.head.init=normal",
    "init.head.init.std=0.5",
    "init.head.covariance.type=closed_form",
    "init=[{id: new, match: x, init: ones}]",
    "init.new.freeze=true",
    "init.head.match.kind=conv",
    "arms.default.init.new.init=zeros",
    "arms.default.extends=v1.2",
    "arms.default.init.f.1.init=zeros",
    "arms.default.remove=[head]",
    "arms.default.init=[]",
    "arms.closed-form={init: [{id: filters, covariance: {width: 0.4}}]}",
    "arms.closed-form.init.filters.covariance.width=0.1",
    "seeds=2",
    "nothing",
)
"""Assignments that build on one another, exclude one another, or are wrong."""


def outcome(overrides: Sequence[str]) -> object:
    """Return what a recipe becomes by overrides: the recipe and its notes, or its errors."""
    try:
        recipe = loads(SET_TEXT, overrides=overrides)
    except RecipeError as error:
        return {(issue.code, issue.path, issue.message) for issue in error.issues}
    return recipe, set(recipe.notes)


SET_TEXT = TEXT.replace(
    "epochs: 3}", "epochs: 3, optimizer: {type: adamw, lr: 0.1, betas: [0.9, 0.99]}}"
).replace(
    "init:\n  - {id: head", "data: {type: cifar10, train_size: 100, augment: [flip]}\ninit:\n  - {id: head", 1
)


@given(
    st.lists(st.sampled_from(POOL), unique=True, min_size=2, max_size=5), st.randoms(use_true_random=False)
)
def test_the_order_has_no_effect(overrides: list[str], random: Random) -> None:
    """Any permutation gives the same recipe, or the same errors."""
    other = random.sample(overrides, len(overrides))
    assert outcome(overrides) == outcome(other)


def test_one_path_is_set_once() -> None:
    """Two values contradict each other, whatever their order; one value twice does not."""
    assert train(over("train.epochs=5", "train.epochs=5"))["epochs"] == 5
    with pytest.raises(RecipeError) as caught:
        over("train.epochs=5", "train.epochs=7")
    (issue,) = caught.value.issues
    assert (issue.code, str(issue.mark), str(issue.first)) == ("MIM-R077", "--set:2:1", "--set:1:1")


def test_another_type_keeps_the_keys_it_has() -> None:
    """The rest is dropped, which is noted; so is an override that something replaces."""
    recipe = loads(SET_TEXT, overrides=["train.optimizer.type=sgd", "data.type=cifar100"])
    optimizer, data = train(recipe)["optimizer"], recipe.arms["default"].data
    assert data is not None
    assert (optimizer["type"], optimizer["lr"]) == ("sgd", 0.1)
    assert (data.type_name(), data.train_size, len(data.augment)) == ("cifar100", 100, 1)
    assert ["`betas`" in note for note in recipe.notes] == [True]

    lost = loads(SET_TEXT, overrides=["train.epochs=9", *(f"arms.{n}.train.epochs=1" for n in recipe.arms)])
    assert [note.split()[1] for note in lost.notes] == ["train.epochs=9"]


@pytest.mark.parametrize("empty", ["init: []", "init:", "surgery: []", "surgery:"])
def test_an_empty_list_does_not_remove_what_is_inherited(empty: str) -> None:
    """A control arm that would be none is an error, which shows how to remove rules."""
    shared = "init: [{id: r, match: a, init: zeros}]"
    if empty.startswith("surgery"):
        shared = "surgery: [{id: r, match: a, type: shared_filters}]"
    for text in (f"{shared}\narms: {{a: {{}}, b: {{{empty}}}}}", f"{shared}\narms:\n  a:\n    {empty}"):
        with pytest.raises(RecipeError) as caught:
            loads(f"recipe: 1\n{text}\n")
        (issue,) = caught.value.issues
        assert issue.code == "MIM-R045"
        assert "remove: [r]" in str(issue.hint)
    with pytest.raises(RecipeError, match="MIM-R045"):
        loads(
            f"recipe: 1\n{shared}\narms: {{a: {{}}, b: {{}}}}\n",
            overrides=[f"arms.a.{empty.split(':', maxsplit=1)[0]}=[]"],
        )
    assert loads(f"recipe: 1\narms: {{a: {{{empty}}}, b: {{model: vit}}}}\n").notes == ()
    assert loads(f"recipe: 1\n{shared}\narms: {{a: {{}}, b: {{remove: [r], {empty}}}}}\n").notes == ()


def test_arms_that_are_the_same_experiment() -> None:
    """They are noted, also where only ids of rules differ."""
    recipe = loads(
        "recipe: 1\narms:\n  a: {init: [{id: x, match: l, init: zeros}]}\n"
        "  b: {init: [{match: l, init: zeros}]}\n"
        "  c: {init: [{match: l, init: ones}]}\n"
    )
    assert [note for note in recipe.notes if "`a` and `b`" in note] == list(recipe.notes) != []


def test_missing_maps_come_into_being() -> None:
    """A path may lead through sections the recipe does not have."""
    recipe = over(
        "study.workers=2", "train.checkpoint.every=4", "train.optimizer.type=sgd", "train.optimizer.lr=0.5"
    )
    assert recipe.study.workers == 2
    assert (train(recipe)["checkpoint"]["every"], train(recipe)["optimizer"]["lr"]) == (4, 0.5)


def test_rules_by_id() -> None:
    """A rule is addressed by its id, also in an arm that inherits it, and only changes there."""
    recipe = over("arms.v1.2.init.filters.scale.gain=0.5", "init.head.init=ones")
    assert rule(recipe, "v1.2", "filters")["scale"] == {"type": "gain", "gain": 0.5}
    assert rule(recipe, "closed-form", "filters")["scale"]["type"] == "none"
    assert rule(recipe, "default", "head")["init"]["type"] == "ones"
    assert [r.id for r in recipe.arms["v1.2"].init] == ["f.1", "filters", "head"]


def test_a_shared_rule_in_one_arm() -> None:
    """An arm can change a rule that all share."""
    recipe = over("arms.closed-form.init.head={freeze: true}")
    assert rule(recipe, "closed-form", "head")["freeze"]["params"] is True
    assert rule(recipe, "default", "head")["freeze"]["params"] is None


def test_names_with_dots() -> None:
    """Arms and rules whose names hold dots are found whole."""
    assert rule(over("arms.v1.2.init.f.1.expect=3"), "v1.2", "f.1")["expect"] == 3


def test_only_the_first_equals_sign_separates() -> None:
    """Values may hold equals signs."""
    match = rule(over("arms.closed-form.init.filters.match.layer=a=b"), "closed-form", "filters")["match"]
    assert match["layer"] == "a=b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (r"blocks\.\d+\.spatial", r"blocks\.\d+\.spatial"),
        ("[a-z]+", "[a-z]+"),
        ("(?P<block>a|b)", "(?P<block>a|b)"),
        ("'quoted'", "quoted"),
        ('"a.b"', "a.b"),
        ("5", "5"),
        ("true", "true"),
        ("a: b", "a: b"),
        ("null", None),
        ("", None),
    ],
)
def test_text_needs_no_quotes(value: str, text: str | None) -> None:
    """Where the schema wants text, a value is text as it stands; null takes it away."""
    match = rule(over(f"arms.closed-form.init.filters.match.layer={value}"), "closed-form", "filters")[
        "match"
    ]
    assert match["layer"] == text


def test_types() -> None:
    """A changed type takes the place of the old section; lists and maps are given in YAML."""
    recipe = over(
        "model=vgg11", "seeds=[3, 4]", "data={type: cifar10, augment: [flip]}", "baseline=v1.2", "name=9"
    )
    model = recipe.arms["default"].model
    assert model is not None
    assert model.type_name() == "vgg11"
    assert (recipe.seeds, recipe.baseline, recipe.name) == ((3, 4), "v1.2", "9")


def test_remove_and_extends() -> None:
    """What composes an arm can be set like the rest."""
    recipe = over("arms.v1.2.remove=[filters]", "arms.default.extends=closed-form")
    assert [r.id for r in recipe.arms["v1.2"].init] == ["f.1", "head"]
    assert [r.id for r in recipe.arms["default"].init] == ["filters", "head"]


def test_place() -> None:
    """The place of an override is its number and its column."""
    recipe = over("seeds=1", "train.epochs=5")
    mark = recipe.where("arms", "default", "train", "epochs")
    assert mark == FilePosition("--set", 2, 14)
    assert mark is not None
    assert mark.text == "train.epochs=5"


def test_spaces() -> None:
    """Spaces around the equals sign do no harm."""
    assert train(over("train.epochs = 5"))["epochs"] == 5


@given(st.integers(min_value=1, max_value=10**7))
def test_whole_numbers(value: int) -> None:
    """A whole number arrives as it was."""
    assert value == train(over(f"train.epochs={value}"))["epochs"]


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_numbers(value: float) -> None:
    """A number arrives as it was, to the last digit."""
    assert (
        value == train(over("train.optimizer.type=adam", f"train.optimizer.lr={value!r}"))["optimizer"]["lr"]
    )


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="'\""),
        min_size=1,
        max_size=40,
    )
)
def test_texts(value: str) -> None:
    """A text arrives as it was, whatever it looks like to YAML."""
    expected = None if value in {"~", "null"} else value
    assert expected == over(f"description={value}").description


@given(st.text(max_size=40))
def test_nothing_but_recipe_errors(text: str) -> None:
    """Whatever is typed, the answer is a recipe or its errors."""
    try:
        over(text)
    except RecipeError as error:
        assert str(error)  # noqa: PT017
