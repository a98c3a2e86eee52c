"""Rules × sites → plan: who wins, and what is an error."""

import pytest
import torch
from torch import nn

from mimetic.config.errors import RecipeError
from mimetic.graph.sites import find_sites
from mimetic.plans.explain import explain
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

from .conftest import Small, plan_of

DEPTHWISE = {"id": "filters", "match": {"kind": "depthwise_conv"}, "covariance": {"type": "closed_form"}}
ZEROS = {"id": "zeros", "match": {"kind": "linear", "param": "bias"}, "init": "zeros"}


def messages(error: RecipeError) -> list[str]:
    """Return the bare messages of an error."""
    return [issue.message for issue in error.issues]


def test_every_parameter_has_one_entry(small: Small) -> None:
    """The plan speaks of each parameter exactly once, also of those no rule matches."""
    plan = plan_of(small, DEPTHWISE)

    assert sorted(e.parameter for e in plan.entries) == sorted(n for n, _ in small.named_parameters())


def test_first_match_wins_per_parameter(small: Small) -> None:
    """An earlier narrow rule takes its parameters, a later wide one the rest."""
    first = {"id": "first", "match": r"blocks\.0\.0", "init": {"type": "constant", "value": 1.0}}
    wide = {"id": "wide", "match": {"class": "Conv2d"}, "init": "zeros"}

    rules = {e.parameter: e.rule for e in plan_of(small, first, wide).entries}

    assert rules["blocks.0.0.weight"] == "first"
    assert rules["blocks.1.0.weight"] == rules["stem.weight"] == "wide"
    assert rules["stem.bias"] is None


def test_depth_is_the_fraction_among_a_kind(small: Small) -> None:
    """The width schedule of the closed form is read at each filter's depth."""
    plan = plan_of(
        small,
        {
            **DEPTHWISE,
            "covariance": {"type": "closed_form", "width": {"start": 0.2, "linear": 1.0, "quadratic": 0.0}},
        },
    )
    widths = [e.arguments["covariance"]["width"] for e in plan.entries if e.rule == "filters"]

    assert widths == pytest.approx([0.2, 1.2])


def test_geometry_and_depth_conditions(small: Small) -> None:
    """Conditions on geometry and depth narrow a match."""
    rule = {"id": "late", "match": {"kernel_size": {"min": 5}, "depth": [0.5, 1.0]}, "init": "zeros"}
    claimed = [e.parameter for e in plan_of(small, rule).entries if e.rule]

    assert claimed == ["blocks.1.0.weight"]


def test_all_mistakes_at_once(small: Small) -> None:
    """A dead rule, a shadowed one and a failed `expect` are reported together."""
    with pytest.raises(RecipeError) as caught:
        plan_of(
            small,
            {**DEPTHWISE, "expect": 3},
            {"id": "late", "match": {"kind": "depthwise_conv"}, "init": "zeros"},
            {"id": "dead", "match": "blocks.0.conv", "init": "zeros"},
        )

    assert {(issue.path[-1], issue.code) for issue in caught.value.issues} == {
        ("dead", "MIM-P022"),
        ("filters", "MIM-P012"),
        ("late", "MIM-P011"),
    }


def test_dead_rule_says_which_condition_failed(small: Small) -> None:
    """A name that matches but a kind that does not is told apart from a wrong name."""
    with pytest.raises(RecipeError) as caught:
        plan_of(small, {"id": "x", "match": {"layer": r"blocks\.\d+\.0", "kind": "conv"}, "init": "zeros"})

    assert messages(caught.value) == [
        (
            "rule `x` matches nothing in this model: 2 layers have a matching name, but of `blocks.0.0`, "
            "it is of kind `depthwise_conv`, not `conv`"
        )
    ]


def test_dead_rule_says_that_the_parameter_is_missing(small: Small) -> None:
    """A layer without the parameter names those it has."""
    with pytest.raises(RecipeError) as caught:
        plan_of(small, {"id": "x", "match": {"layer": "head", "param": "weights"}, "init": "zeros"})

    assert caught.value.issues[0].hint == "their parameters are `bias`, `weight`"


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("depthwise_conv", "write `{kind: depthwise_conv}`"),
        (r"blocks\.0", r"the whole name must match; `'blocks\.0\..*'` matches `blocks.0.0`"),
        ("0", r"the whole name must match; `'.*\.0'` matches `blocks.0.0`"),
        ("blocks[.]", "the whole name must match; `'blocks[.].*'` matches `blocks.0.0`"),
        ("locks|nothing", "the whole name must match; `'.*(?:locks|nothing).*'` matches `blocks.0.0`"),
    ],
)
def test_hints_offer_what_is_probably_meant(pattern: str, hint: str, small: Small) -> None:
    """A kind in the place of a name, and parts of names."""
    with pytest.raises(RecipeError) as caught:
        plan_of(small, {"id": "x", "match": pattern, "init": "zeros"})

    (issue,) = caught.value.issues
    assert issue.code == "MIM-P022"
    assert hint in str(issue.hint)


def test_unmatched_error(small: Small) -> None:
    """`unmatched: error` lists what no rule speaks of."""
    with pytest.raises(RecipeError) as caught:
        plan_of(
            small,
            {"id": "x", "match": {"class": "Module", "param": "weight"}, "init": "zeros"},
            unmatched="error",
        )

    assert messages(caught.value)[0].startswith("no rule matches 8 parameters: `stem.bias`")


def test_initializer_that_does_not_fit_names_the_layer(small: Small) -> None:
    """A closed form on a linear layer is refused when it is planned."""
    with pytest.raises(RecipeError) as caught:
        plan_of(small, {"id": "x", "match": {"kind": "linear"}, "covariance": "closed_form"})

    assert "head" in messages(caught.value)[0]


class Tied(nn.Module):
    """An embedding whose weight is the head's, too."""

    def __init__(self, *, with_norm: bool = False) -> None:
        """Tie the two."""
        super().__init__()
        self.norm = nn.LayerNorm(4) if with_norm else nn.Identity()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed and read out."""
        return self.head(self.norm(self.embed(x)))


def tied_plan(*rules: dict[str, object], with_norm: bool = False) -> Plan:
    """Plan rules against the tied network."""
    recipe = load({"recipe": 1, "name": "tied", "init": list(rules)})
    graph = find_sites(Tied(with_norm=with_norm), torch.zeros(2, 3, dtype=torch.long))
    return resolve(recipe.arms["main"], graph, seed=0)


def test_tied_parameters_appear_once_with_their_aliases() -> None:
    """A tied tensor is one entry, and a rule may name it by an alias."""
    plan = tied_plan({"id": "head", "match": "head", "init": "zeros"})

    assert [(e.parameter, e.aliases, e.rule) for e in plan.entries] == [
        ("embed.weight", ("head.weight",), "head")
    ]


def test_two_rules_on_one_tied_tensor_are_an_error() -> None:
    """Writing the same storage in two ways is refused."""
    with pytest.raises(RecipeError) as caught:
        tied_plan(
            {"id": "a", "match": "embed", "init": "zeros"},
            {"id": "b", "match": "head", "init": "ones"},
        )

    issue = next(issue for issue in caught.value.issues if issue.code == "MIM-P010")
    assert issue.path == ("arms", "main", "init", "b")
    assert "differently from rule `a`, but it is the same tensor as `embed.weight`" in issue.message


def test_explain_agrees_with_the_plan_on_tied_weights() -> None:
    """A rule that matches a tied tensor under its other name claims it in the plan and in the explanation."""
    plan = tied_plan(
        {"id": "norms", "match": {"kind": "norm", "param": "bias"}, "init": "zeros"},
        {"id": "head", "match": "head", "init": "zeros"},
        {"id": "same", "match": "embed|norm", "init": "zeros"},
        with_norm=True,
    )

    assert plan.entry("embed.weight").rule == "head"
    for name in ("embed", "embed.weight", "head", "head.weight"):
        (item,) = explain(plan.matching, name)
        assert item.parameter.name == "embed.weight"
        assert [(v.rule, v.reason, v.alias) for v in item.verdicts] == [
            ("norms", "it is of kind `embedding`, not `norm`", None),
            ("head", None, "head.weight"),
            ("same", "it matches, but rule `head` comes first", None),
        ]


def test_hash_ignores_names_and_order_of_rules(small: Small) -> None:
    """Equal plans have equal hashes, whatever the rules are called and in which order they stand."""
    one = plan_of(small, DEPTHWISE, ZEROS)
    other = plan_of(small, {**ZEROS, "id": "z"}, {**DEPTHWISE, "id": "f"})

    assert one.hash == other.hash
    assert one.hash != plan_of(small, DEPTHWISE, ZEROS, seed=1).hash
    assert one.hash != plan_of(small, {**DEPTHWISE, "freeze": True}, ZEROS).hash


@pytest.mark.parametrize("layers", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_layers_resolve(layers: int) -> None:
    """Every parameter has its entry; docs/performance.md says what it costs."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
    recipe = load(
        {
            "recipe": 1,
            "name": "deep",
            "init": [
                {"id": "early", "match": {"layer": r"\d{1,2}", "kind": "linear"}, "init": "orthogonal"},
                {"id": "rest", "match": {"kind": "linear"}, "init": "kaiming_normal"},
            ],
        }
    )
    plan = resolve(recipe.arms["main"], find_sites(model, torch.zeros(2, 4)), seed=0)

    assert len(plan.entries) == 2 * layers
