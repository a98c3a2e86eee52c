"""The resolved form: loads back to an equal recipe."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from mimetic.config.registry import registered
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load, loads
from mimetic.recipe.recipe import Recipe

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
POSITIVE = st.floats(min_value=1e-6, max_value=1e6)
ATOMS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(max_size=8)
ARGUMENTS = st.dictionaries(
    st.text(max_size=6),
    st.recursive(
        ATOMS,
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
MODELS = st.sampled_from(["convmixer", "vgg11"]) | st.fixed_dictionaries(
    {"type": st.just("timm"), "name": st.text(min_size=1, max_size=8)}, optional={"args": ARGUMENTS}
)
DATA = st.sampled_from(["digits", {"type": "cifar10", "augment": ["flip", {"type": "crop", "padding": 2}]}])
TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 99),
        "optimizer": st.sampled_from(list(registered("optimizer"))),
        "schedule": st.sampled_from(list(registered("schedule"))),
        "clip_norm": st.none() | POSITIVE,
        "device": st.sampled_from(["auto", "cuda:1"]),
    },
)
WAYS = st.one_of(
    st.fixed_dictionaries({"init": st.sampled_from(["zeros", "keep", {"type": "constant", "value": 2}])}),
    st.fixed_dictionaries(
        {"covariance": st.sampled_from(["identity", {"type": "closed_form", "width": 0.3}])},
        optional={"scale": POSITIVE | st.sampled_from(["kaiming", {"type": "trace", "trace": 2}])},
    ),
    st.just({"freeze": {"statistics": True}}),
    st.fixed_dictionaries({"covariance": st.deferred(lambda: MEASURED)}),
)
ORIGINS = st.one_of(
    st.fixed_dictionaries({"stage": st.just("one")}, optional={"seeds": st.sampled_from(["own", "all"])}),
    st.fixed_dictionaries(
        {"checkpoint": st.text(min_size=1, max_size=8)},
        optional={"model": st.sampled_from(["vgg11", {"type": "timm", "name": "on"}])},
    ),
    st.just({"trial": "010"}),
)
CARRIED = {
    "layers": st.sampled_from(["depth", "name"]) | st.dictionaries(st.text(max_size=4), st.text(max_size=4)),
    "shrink": st.just("auto") | st.floats(0, 1),
    "rank": st.none() | st.integers(1, 9),
    "kind": st.sampled_from([None, "conv", "linear"]),
}
MEASURED = st.one_of(
    st.fixed_dictionaries({"type": st.just("filters"), "from": ORIGINS}, optional=CARRIED),
    st.fixed_dictionaries(
        {"type": st.just("agop"), "from": ORIGINS}, optional={"power": st.sampled_from([0.5, 1])}
    ),
    st.fixed_dictionaries({"type": st.just("patches")}, optional={"epsilon": POSITIVE}),
    st.fixed_dictionaries({"type": st.just("file"), "path": st.text(min_size=1)}, optional=CARRIED),
)
MATCHES = st.sampled_from(
    [
        r"a\.\d+",
        {"kind": "conv", "kernel_size": 3},
        {"class": "Conv2d", "depth": [0, 0.5]},
        {"layer": "[on]", "param": "bias"},
    ]
)


@st.composite
def rules(draw: Any, *, min_size: int = 0) -> list[Any]:
    """Draw a list of rules, some with ids."""
    names = draw(st.lists(NAMES, min_size=min_size, max_size=3, unique=True))
    return [
        draw(WAYS) | {"match": draw(MATCHES)} | ({"id": name} if draw(st.booleans()) else {})
        for name in names
    ]


SECTIONS = {
    "model": MODELS,
    "data": DATA,
    "train": TRAIN,
    "init": rules(),
    "unmatched": st.sampled_from(["keep", "error"]),
}
HARVEST = {"match": "a", "covariance": {"type": "nfm", "from": {"stage": "one"}}}
STAGES = st.fixed_dictionaries(
    {},
    optional={key: value for key, value in SECTIONS.items() if key != "init"} | {"seeds": st.integers(1, 3)},
)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        **SECTIONS,
        "name": NAMES,
        "description": st.none() | st.text(max_size=30),
        "seeds": st.integers(1, 5) | st.lists(st.integers(0, 10**9), min_size=1, max_size=4, unique=True),
        "study": st.fixed_dictionaries({}, optional={"workers": st.integers(1, 4)}),
        "arms": st.dictionaries(
            NAMES,
            st.none() | st.fixed_dictionaries({}, optional=SECTIONS | {"init": rules(min_size=1)}),
            max_size=3,
        ),
    },
).flatmap(lambda recipe: STAGES.map(lambda one: with_stages(recipe, one)))


def with_stages(recipe: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with a stage `one`, which an arm harvests through the stage `two`."""
    last = {"match": "a", "covariance": {"type": "filters", "from": {"stage": "two", "seeds": "all"}}}
    arms = {**recipe.get("arms", {}), "harvest": {"init": [last]}}
    return {**recipe, "arms": arms, "stages": {"one": one, "two": {"init": [HARVEST]}}}


@given(RECIPES)
def test_round_trip(source: dict[str, Any]) -> None:
    """The resolved form of any recipe is the same recipe, and its own resolved form."""
    recipe = load(source)
    text = resolved(recipe)
    assert loads(text) == recipe
    assert text == resolved(loads(text))


@given(RECIPES)
def test_other_readers_agree(source: dict[str, Any]) -> None:
    """PyYAML, which speaks YAML 1.1, reads the resolved form as we do."""
    text = resolved(load(source))
    assert loads(text) == load(yaml.safe_load(text))


def test_defaults_are_written_out() -> None:
    """The resolved form says what was implied, so that a later default changes nothing."""
    text = resolved(load({"train": {"epochs": 3}, "init": [{"match": "head", "init": "kaiming_normal"}]}))
    values = yaml.safe_load(text)
    assert values["arms"]["main"]["train"]["optimizer"]["type"] == "adamw"
    assert values["arms"]["main"]["init"][0] == {
        "id": "rule-1",
        "match": {"layer": "head"},
        "init": {
            "type": "kaiming_normal",
            "per": "tensor",
            "a": 0.0,
            "mode": "fan_in",
            "nonlinearity": "leaky_relu",
        },
        "freeze": {"params": None, "statistics": False},
    }


def test_a_recipe_made_by_hand() -> None:
    """A recipe built from its sections is written like one that was read."""
    recipe = Recipe(name="x", arms={"main": {}})  # type: ignore[dict-item]
    assert loads(resolved(recipe)) == recipe
