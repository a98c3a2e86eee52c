"""Laying one layer over another."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mimetic.config.errors import Issue
from mimetic.config.text.tree import List, Map, NodePosition, plain, wrapped
from mimetic.recipe.compose.group import ARM
from mimetic.recipe.compose.merge import check_removals, merge_maps, merge_rules, without_removed
from mimetic.recipe.validate.schema_node import SchemaNode

RULE = ARM.below("init").below(0)


def arm(base: dict[str, Any], over: dict[str, Any]) -> Any:
    """Merge two arms given as plain data."""
    return plain(merge_maps(wrapped(base), wrapped(over), ARM))


def rules(base: list[Any], over: list[Any]) -> Any:
    """Merge two lists of rules given as plain data."""
    first, second = wrapped({"init": base})["init"], wrapped({"init": over})["init"]
    return plain(merge_rules(first, second, RULE))


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"train": {"epochs": 3}}, {"train": {"batch_size": 8}}, {"train": {"epochs": 3, "batch_size": 8}}),
        ({"train": {"epochs": 3}}, {"train": {"epochs": 5}}, {"train": {"epochs": 5}}),
        ({"train": {"epochs": 3}}, {"train": None}, {"train": None}),
        ({"train": None}, {"train": {"epochs": 3}}, {"train": {"epochs": 3}}),
        # A type that stays keeps its arguments, one that changes drops them.
        (
            {"model": {"type": "vgg11", "width": 8}},
            {"model": {"type": "vgg11"}},
            {"model": {"type": "vgg11", "width": 8}},
        ),
        ({"model": {"type": "vgg11", "width": 8}}, {"model": {"type": "timm"}}, {"model": {"type": "timm"}}),
        (
            {"model": {"type": "vgg11", "width": 8}},
            {"model": "vgg11"},
            {"model": {"type": "vgg11", "width": 8}},
        ),
        ({"model": {"type": "vgg11", "width": 8}}, {"model": "convmixer"}, {"model": "convmixer"}),
        ({"model": "vgg11"}, {"model": {"width": 8}}, {"model": {"type": "vgg11", "width": 8}}),
        ({"model": {"width": 8}}, {"model": "vgg11"}, {"model": {"width": 8, "type": "vgg11"}}),
        (
            {"train": {"optimizer": {"type": "sgd", "lr": 1}}},
            {"train": {"optimizer": {"type": "adam"}}},
            {"train": {"optimizer": {"type": "adam"}}},
        ),
        # Lists replace, and arguments of a function that is not ours have no types of ours.
        (
            {"data": {"augment": ["flip", "crop"]}},
            {"data": {"augment": ["flip"]}},
            {"data": {"augment": ["flip"]}},
        ),
        (
            {"model": {"type": "timm", "args": {"type": "a", "k": 1}}},
            {"model": {"args": {"type": "b"}}},
            {"model": {"type": "timm", "args": {"type": "b", "k": 1}}},
        ),
    ],
)
def test_sections(base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]) -> None:
    """Maps merge; a changed type, a scalar and a list replace."""
    assert merged == arm(base, over)


MATCH = {"kind": "conv"}


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        # An inherited rule keeps its place, a new one goes in front, new ones keep their order.
        ([{"id": "a"}, {"id": "b"}], [{"id": "b", "expect": 3}], [{"id": "a"}, {"id": "b", "expect": 3}]),
        (
            [{"id": "a"}],
            [{"id": "x"}, {"id": "a", "expect": 1}, {"id": "y"}],
            [{"id": "x"}, {"id": "y"}, {"id": "a", "expect": 1}],
        ),
        # A way to begin drops the other.
        (
            [{"id": "a", "match": MATCH, "covariance": "identity", "scale": 2, "freeze": True}],
            [{"id": "a", "init": "zeros"}],
            [{"id": "a", "match": MATCH, "freeze": True, "init": "zeros"}],
        ),
        (
            [{"id": "a", "match": MATCH, "init": "zeros"}],
            [{"id": "a", "covariance": "identity"}],
            [{"id": "a", "match": MATCH, "covariance": "identity"}],
        ),
        (
            [{"id": "a", "covariance": "identity"}],
            [{"id": "a", "init": None}],
            [{"id": "a", "covariance": "identity", "init": None}],
        ),
        # Parts of a rule merge like any section.
        (
            [{"id": "a", "match": "head"}],
            [{"id": "a", "match": {"kind": "linear"}}],
            [{"id": "a", "match": {"layer": "head", "kind": "linear"}}],
        ),
        (
            [{"id": "a", "covariance": {"type": "closed_form", "width": {"start": 1, "linear": 2}}}],
            [{"id": "a", "covariance": {"width": {"linear": 3}}}],
            [{"id": "a", "covariance": {"type": "closed_form", "width": {"start": 1, "linear": 3}}}],
        ),
        (
            [{"id": "a", "scale": "kaiming"}],
            [{"id": "a", "scale": {"gain": 2}}],
            [{"id": "a", "scale": {"type": "kaiming", "gain": 2}}],
        ),
        # Rules without an id are always new, and are called by what is free.
        ([], [{}, {"id": "a"}, {}], [{"id": "rule-1"}, {"id": "a"}, {"id": "rule-3"}]),
        ([{"id": "rule-1"}], [{"expect": 1}], [{"id": "rule-2", "expect": 1}, {"id": "rule-1"}]),
        ([], [{}, {"id": "rule-1"}], [{"id": "rule-2"}, {"id": "rule-1"}]),
    ],
)
def test_rules(base: list[Any], over: list[Any], merged: list[Any]) -> None:
    """Rules merge by id."""
    assert merged == rules(base, over)


def test_removal() -> None:
    """Inherited rules can be left out by id; an id that is not there is noted."""
    issues: list[Issue] = []
    inherited = wrapped({"init": [{"id": "a"}, {"id": "b"}]})["init"]
    names = List(NodePosition()).add("a", NodePosition(("remove",))).add("c", NodePosition(("remove",)))
    assert plain(without_removed(inherited, names)) == [{"id": "b"}]
    check_removals(["a", "b"], names, issues)
    assert [issue.message for issue in issues] == ["no inherited rule has the id `c`"]


def test_nothing_is_changed_in_place() -> None:
    """Merging leaves both sides as they were, since arms share what they inherit."""
    base, over = wrapped({"train": {"epochs": 3}}), wrapped({"train": {"epochs": 5}})
    merge_maps(base, over, ARM)
    assert (plain(base), plain(over)) == ({"train": {"epochs": 3}}, {"train": {"epochs": 5}})


MAPS = st.recursive(
    st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(st.sampled_from("abc"), MAPS, max_size=3)


@given(TREES, TREES, TREES)
def test_associative(one: Any, two: Any, three: Any) -> None:
    """Maps without types merge alike from the left and from the right."""

    def over(base: Map, top: Map) -> Map:
        return merge_maps(base, top, SchemaNode())

    a, b, c = (wrapped(value) for value in (one, two, three))
    assume(_kinds_agree(one, two, three))
    assert plain(over(over(a, b), c)) == plain(over(a, over(b, c)))


def _kinds_agree(*values: Any) -> bool:
    """Tell whether no map is laid over by a scalar and then by a map again, which forgets the first."""
    maps = [isinstance(value, dict) for value in values]
    if not all(maps):
        return not (maps[0] and maps[-1])
    keys = {key for value in values for key in value}
    return all(_kinds_agree(*(value[key] for value in values if key in value)) for key in keys)


@given(TREES)
def test_neutral(one: Any) -> None:
    """The empty map changes nothing, and neither does a map laid over itself."""
    tree = wrapped(one)
    assert one == plain(merge_maps(tree, wrapped({}), SchemaNode()))
    assert one == plain(merge_maps(wrapped({}), tree, SchemaNode()))
    assert one == plain(merge_maps(tree, tree, SchemaNode()))


def test_spots_follow_the_values() -> None:
    """After a merge each value still knows where it was written; the section stays where it began."""
    base = Map(NodePosition(("base",))).put(
        "train",
        Map(NodePosition(("train",))).put("epochs", 3, NodePosition(("one",))),
        NodePosition(("train",)),
    )
    over = Map(NodePosition(("over",))).put(
        "train", Map(NodePosition(("arm",))).put("lr", 1, NodePosition(("two",))), NodePosition(("arm",))
    )
    merged = merge_maps(base, over, SchemaNode())
    assert merged.spots["train"] == NodePosition(("train",))
    assert (merged["train"].here, merged["train"].last) == (NodePosition(("train",)), NodePosition(("arm",)))
    assert {key: spot.path for key, spot in merged["train"].spots.items()} == {
        "epochs": ("one",),
        "lr": ("two",),
    }
