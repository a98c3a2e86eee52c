"""Stages: composed like arms, harvested by name, trained upstream first."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mimetic.config.errors import FilePosition, RecipeError, dotted
from mimetic.config.text.tree import plain, wrapped
from mimetic.covariance.config import Agop, Filters
from mimetic.covariance.trained_ref import TrainedRef
from mimetic.recipe.compose.group import ARM
from mimetic.recipe.compose.merge import merge_maps
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load, loads
from mimetic.recipe.recipe import Recipe, Stage
from mimetic.recipe.rule import Rule
from mimetic.recipe.stages import stages_of

# The example of the design, word for word.
EXAMPLE = r"""# mimetic run recipes/convmixer-cifar10.yaml
recipe: 1
name: convmixer-cifar10
model: {type: convmixer, dim: 256, depth: 8, kernel_size: 9, patch_size: 2}
data:  {type: cifar10}
train:
  epochs: 25
  batch_size: 512
  optimizer: {type: adamw, lr: 0.05, weight_decay: 0.005}
  schedule: {type: triangular}
  precision: bf16
seeds: 3
baseline: default
arms:
  default: {}                                   # the model's own initialization
  closed-form:
    init:
      - id: filters
        match: {layer: 'blocks\.\d+\.spatial', kind: depthwise_conv}
        covariance: {type: closed_form, width: {start: 0.15, linear: 0.5, quadratic: 0.25}}
        scale: {type: none}
        expect: 8
  closed-form-frozen:
    extends: closed-form
    init:
      - {id: filters, freeze: true}             # merged into the inherited rule by id
  transfer:
    init:
      - id: filters
        match: {kind: depthwise_conv}
        covariance: {type: filters, from: {stage: small}}   # depth interpolated, kernel resized
stages:
  small:
    model: {dim: 64, depth: 4, kernel_size: 5}  # merged over the recipe's model
    train: {epochs: 5}
"""

# Three rounds: train, harvest, begin from it, train again.
ROUNDS = """recipe: 1
model: {type: convmixer, dim: 64}
data: digits
train: {epochs: 3}
init:
  - {id: filters, match: {kind: depthwise_conv}, covariance: {type: filters, from: {stage: round-2}}}
stages:
  round-2:
    extends: round-1
    init:
      - {id: filters, covariance: {type: agop, power: 0.5, from: {stage: round-1, seeds: all}}}
  round-1:
    train: {epochs: 1}
    seeds: [7, 8]
    unmatched: error
    init:
      - {id: filters, match: {kind: depthwise_conv}, init: orthogonal}
      - {id: rest, match: {kind: linear}, init: zeros}
"""


def test_the_example_of_the_design() -> None:
    """A small network is trained with what the recipe says but for what it changes."""
    recipe = loads(EXAMPLE)
    small, covariance = recipe.stages["small"], recipe.arms["transfer"].init[0].covariance
    assert isinstance(covariance, Filters)
    assert covariance.from_ == TrainedRef(stage="small")
    assert small.model is not None
    assert small.model.model_dump(include={"dim", "depth", "kernel_size", "patch_size"}) == {
        "dim": 64,
        "depth": 4,
        "kernel_size": 5,
        "patch_size": 2,
    }
    assert small.train is not None
    assert (small.train.epochs, small.train.batch_size, small.seeds) == (5, 512, None)
    assert (small.data, small.init, small.unmatched) == (recipe.arms["default"].data, (), "keep")
    assert recipe.stage_order() == ("small",)


def test_rounds() -> None:
    """A stage extends another, with its seeds and its rules by id, and is trained after those it harvests."""
    recipe = loads(ROUNDS)
    first, second = recipe.stages["round-1"], recipe.stages["round-2"]
    assert recipe.stage_order() == ("round-1", "round-2")
    assert [rule.id for rule in second.init] == ["filters", "rest"]
    assert (second.seeds, second.unmatched, second.train) == (first.seeds, "error", first.train)
    assert isinstance(second.init[0].covariance, Agop)
    assert (second.init[0].init, second.init[0].covariance.power) == (None, 0.5)
    assert [stages_of(part.init) for part in (first, second, recipe.arms["main"])] == [
        (),
        ("round-1",),
        ("round-2",),
    ]


def test_a_stage_does_not_begin_with_the_rules_of_the_recipe() -> None:
    """What the top says of beginnings is for the arms; model, data and training are for all."""
    shared = {"init": [{"match": {"kind": "conv"}, "covariance": FROM_SMALL}], "unmatched": "error"}
    stage = load({"data": "digits", "seeds": 3, **shared, "stages": {"small": None}}).stages["small"]
    assert (stage.init, stage.unmatched, stage.seeds) == ((), "keep", None)
    assert stage.data is not None
    assert stage.data.type_name() == "digits"


FROM_SMALL = {"type": "filters", "from": {"stage": "small"}}


def recipe_of(**stages: Any) -> dict[str, Any]:
    """Return a recipe whose only rule harvests the stage `small`."""
    rule = {"id": "filters", "match": {"kind": "conv"}, "covariance": FROM_SMALL}
    return {"init": [rule], "stages": stages}


def test_another_type_replaces() -> None:
    """A changed type drops the arguments of the recipe's model, as in an arm."""
    recipe = load(
        {
            "model": {"type": "convmixer", "dim": 8},
            **recipe_of(small={"model": {"type": "vgg11", "width": 8}}),
        }
    )
    assert recipe.stages["small"].model is not None
    assert recipe.stages["small"].model.type_name() == "vgg11"


def test_nothing_is_a_recipe_without_stages() -> None:
    """`stages:` may be empty or null."""
    assert [load({"stages": stages}).stages for stages in (None, {})] == [{}, {}]


def test_places() -> None:
    """Values of a stage are found at their place, inherited ones where they come from."""
    recipe = loads(ROUNDS, file="r.yaml")
    where = recipe.address("round-2", "stages").mark
    assert where("init", 0, "covariance", "from", "stage") == FilePosition("r.yaml", 11, 74)
    assert where("train", "epochs") == FilePosition("r.yaml", 13, 21)
    assert where("model", "dim") == FilePosition("r.yaml", 2, 31)
    assert loads("recipe: 1\n").where("stages") is None


def test_the_resolved_form_is_the_same_recipe() -> None:
    """Stages are written out complete, the trained network under the key `from`."""
    for text in (EXAMPLE, ROUNDS):
        recipe = loads(text)
        assert loads(resolved(recipe)) == recipe
        assert "from_" not in resolved(recipe)
        assert "from:\n" in resolved(recipe)


def test_overrides() -> None:
    """Values, rules and seeds of a stage are set like those of an arm, wherever they were inherited from."""
    recipe = loads(
        ROUNDS,
        overrides=[
            "stages.round-2.train.epochs=9",
            "stages.round-1.model.dim=16",
            "stages.round-1.seeds=[7]",
            "stages.round-2.init.rest.init=ones",
            "stages.round-2.init.filters.covariance.from.seeds=[7]",
            "data=cifar10",
        ],
    )
    first, second = (plain_stage(recipe, name) for name in ("round-1", "round-2"))
    assert (first["train"]["epochs"], second["train"]["epochs"]) == (1, 9)
    assert (first["model"]["dim"], second["model"]["dim"]) == (16, 16)
    assert (first["init"][1]["init"]["type"], second["init"][1]["init"]["type"]) == ("zeros", "ones")
    assert (first["data"]["type"], second["data"]["type"]) == ("cifar10", "cifar10")
    assert (first["seeds"], second["seeds"]) == ((7,), (7,))
    assert second["init"][0]["covariance"]["from"]["seeds"] == (7,)


def plain_stage(recipe: Recipe, name: str) -> Any:
    """Return a stage as plain values by the keys of the language."""
    return recipe.stages[name].model_dump(by_alias=True, serialize_as_any=True)


@pytest.mark.parametrize(
    ("over", "origin"),
    [
        ({"stage": "b"}, {"stage": "b", "seeds": "all"}),
        ({"seeds": [0]}, {"stage": "a", "seeds": [0]}),
        ({"checkpoint": "x"}, {"checkpoint": "x"}),
        ({"stage": None, "trial": "x"}, {"stage": None, "trial": "x"}),
    ],
)
def test_another_origin_replaces(over: dict[str, Any], origin: dict[str, Any]) -> None:
    """A checkpoint laid over a stage takes its place, with all that was said of the stage."""

    def arm(source: dict[str, Any]) -> Any:
        return wrapped({"covariance": {"type": "filters", "from": source}})

    merged = merge_maps(arm({"stage": "a", "seeds": "all"}), arm(over), ARM.below("init").below(0))
    assert plain(merged)["covariance"]["from"] == origin


def test_idle_stages_that_are_no_mistake_are_left_out(tmp_path: Any) -> None:
    """Who inherits a stage, or harvests it no more for one run, need not train it."""
    recipe = loads(ROUNDS, overrides=["init.filters.init=zeros"])
    assert (dict(recipe.stages), recipe.where("stages")) == ({}, None)
    (tmp_path / "base.yaml").write_text(ROUNDS)
    (tmp_path / "top.yaml").write_text(
        "recipe: 1\nextends: base.yaml\ninit: [{id: filters, covariance: {from: {stage: round-1}}}]\n"
    )
    recipe = load(tmp_path / "top.yaml")
    assert list(recipe.stages) == ["round-1"]
    assert loads(resolved(recipe)) == recipe
    with pytest.raises(RecipeError, match="`idle` is never used"):
        loads(ROUNDS + "  idle: {}\n", overrides=["seeds=2"])


RULE = Rule.model_validate({"id": "a", "match": "a", "covariance": FROM_SMALL})


@pytest.mark.parametrize(
    ("arm", "stages", "message"),
    [
        ((RULE,), {}, "there is no stage `small`"),
        ((), {"small": Stage()}, "the stage `small` is never used"),
        ((RULE,), {"small": Stage(init=(RULE,))}, "the stage `small` harvests itself: small → small"),
    ],
)
def test_recipes_made_by_hand(arm: Any, stages: dict[str, Stage], message: str) -> None:
    """A recipe built from its sections holds to the same rules, told with the path."""
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({"name": "x", "arms": {"main": {"init": arm}}, "stages": stages})


@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"stage": "a", "trial": "b"},
        {"weights": "DEFAULT"},
        {"stage": "a", "model": "vgg11"},
        {"model": "vgg11"},
        {"checkpoint": "a", "seeds": "all"},
        {"stage": "a", "seeds": []},
        {"stage": "a", "seeds": [1, 1]},
    ],
)
def test_origins_that_contradict_themselves(origin: dict[str, Any]) -> None:
    """A trained network is one thing, and what is said beside belongs to it."""
    with pytest.raises(ValidationError):
        TrainedRef.model_validate(origin)


@pytest.mark.parametrize(
    "origin",
    [
        {"stage": "a", "seeds": (3, 1)},
        {"trial": "mlruns/studies/x", "seeds": "own"},
        {"checkpoint": "a.pt"},
        {"checkpoint": "a.pt", "model": {"type": "vgg11"}},
        {"weights": "DEFAULT", "model": {"type": "torchvision", "name": "resnet18"}},
    ],
)
def test_origins(origin: dict[str, Any]) -> None:
    """A stage, a trial, a checkpoint with or without its model, and a published model."""
    read = TrainedRef.model_validate(origin)
    assert origin == read.model_dump(exclude_unset=True, serialize_as_any=True)


def from_arm(name: str, **origin: Any) -> dict[str, Any]:
    """Return the section of an arm that begins from another arm."""
    return {"init": [{"match": "a", "covariance": {"type": "nfm", "from": {"arm": name, **origin}}}]}


def test_arms_begin_from_arms_in_waves() -> None:
    """What is harvested comes in an earlier wave; what needs nothing trains at once."""
    arms = {"last": from_arm("second"), "plain": {}, "second": from_arm("plain"), "other": {"init": []}}
    read = load({"arms": arms, "seeds": 2})
    assert read.generations() == (
        (("arms", "plain"), ("arms", "other")),
        (("arms", "second"),),
        (("arms", "last"),),
    )


@pytest.mark.parametrize(
    ("sections", "code", "path"),
    [
        (
            {"arms": {"a": from_arm("b"), "b": from_arm("a")}},
            "MIM-R024",
            "arms.b.init.rule-1.covariance.from.arm",
        ),
        ({"arms": {"a": from_arm("a"), "b": {}}}, "MIM-R024", "arms.a.init.rule-1.covariance.from.arm"),
        ({"arms": {"a": from_arm("x"), "b": {}}}, "MIM-R021", "arms.a.init.rule-1.covariance.from.arm"),
        (
            {"arms": {"a": from_arm("b", seeds=[5]), "b": {}}},
            "MIM-R022",
            "arms.a.init.rule-1.covariance.from.seeds[0]",
        ),
        (
            {
                "arms": {"a": {"init": [{"match": "a", "covariance": FROM_SMALL}]}, "b": {}},
                "stages": {"small": from_arm("b")},
            },
            "MIM-R025",
            "stages.small.init.rule-1.covariance.from.arm",
        ),
    ],
)
def test_arms_that_cannot_be_harvested(sections: dict[str, Any], code: str, path: str) -> None:
    """Cycles, unknown arms and seeds, and stages that would have to wait for an arm."""
    with pytest.raises(RecipeError) as caught:
        load(sections)
    assert [(issue.code, dotted(issue.path)) for issue in caught.value.issues] == [(code, path)]


def chained(numbers: int) -> dict[str, Any]:
    """Return stages that harvest one another in a row, the last of them called `small`."""
    names = [*(f"s{n}" for n in range(numbers - 1)), "small"]
    return {
        name: {"init": [{"match": "a", "covariance": {"type": "nfm", "from": {"stage": before}}}]}
        if before is not None
        else {}
        for before, name in zip([None, *names], names, strict=False)
    }


@pytest.mark.slow
def test_long_chains() -> None:
    """Thousands of rounds are ordered, and a circle of thousands is told in one line."""
    stages = chained(2000)
    assert load(recipe_of(**stages)).stage_order() == tuple(stages)
    circle = {**stages, "s0": {"init": [{"match": "a", "covariance": FROM_SMALL}]}}
    with pytest.raises(RecipeError, match=r"harvests itself: s0 → small → s1998 → .* → … → s0 ") as caught:
        load(recipe_of(**circle))
    assert len(caught.value.issues) == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_order(edges: list[tuple[int, int]]) -> None:
    """Every order has harvested stages first; where there is none, a circle is named that is one."""
    needs = {f"s{n}": sorted({f"s{b}" for a, b in edges if a == n}) for n in range(7)}

    def rules(names: list[str]) -> list[Any]:
        return [{"match": n, "covariance": {"type": "nfm", "from": {"stage": n}}} for n in names]

    tree = {"init": rules(list(needs)), "stages": {name: {"init": rules(by)} for name, by in needs.items()}}
    try:
        order = load(tree).stage_order()
    except RecipeError as error:
        for issue in error.issues:
            chain = issue.message.partition("harvests itself: ")[2].split(" → ")
            assert chain[0] == chain[-1]
            assert all(b in needs[a] for a, b in pairwise(chain))
    else:
        assert sorted(order) == sorted(needs)
        assert all(order.index(b) < order.index(a) for a, by in needs.items() for b in by)


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_use(harvested: set[int], chained_to: set[int]) -> None:
    """A stage is used if an arm harvests it, or a stage that is used; each other one is told."""

    def rules(numbers: set[int]) -> list[Any]:
        return [{"match": "a", "covariance": {"type": "nfm", "from": {"stage": f"s{n}"}}} for n in numbers]

    # The stages of the second set harvest the one of the next higher number.
    stages = {f"s{n}": {"init": rules({n + 1} if n in chained_to - {5} else set())} for n in range(6)}
    used = {n for n in range(6) if any(m <= n and chained_to >= set(range(m, n)) for m in harvested)}
    try:
        assert set(load({"init": rules(harvested), "stages": stages}).stages) == {f"s{n}" for n in used}
    except RecipeError as error:
        assert {issue.path for issue in error.issues} == {("stages", f"s{n}") for n in set(range(6)) - used}  # noqa: PT017
