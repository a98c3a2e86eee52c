"""Rules on composite sites: who claims what, declarations, and what is said where nothing is recognised."""

import pytest
import timm
import torch
import yaml
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mimetic.config.errors import RecipeError
from mimetic.graph.sites import find_sites
from mimetic.plans.explain import explain
from mimetic.plans.matching import match_rules
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

FROZEN = {"id": "attention", "match": {"kind": "attention"}, "freeze": True}
BLOCK = {"qkv": "mixing.to_qkv", "out": "to_out", "heads": 4}


class Own(nn.Module):
    """An attention of one's own, under names that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.ModuleDict({"to_qkv": nn.Linear(24, 72)})
        self.to_out = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.to_out(self.mixing["to_qkv"](x)[..., :24])


class OwnAttention(Own):
    """The same, whose name says what it is, and which keeps the number of its heads."""

    num_heads: int

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4


def vit(**arguments: object) -> nn.Module:
    """Return a small ViT on the meta device."""
    with torch.device("meta"):
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=4, **arguments
        )


def plan_of(model: nn.Module, *rules: dict, **arm: object) -> Plan:
    """Return the plan of rules given as mappings."""
    recipe = load({"recipe": 1, "name": "test", "init": list(rules), **arm})
    return resolve(recipe.arms["main"], find_sites(model), seed=0)


def claimed(plan: Plan, rule: str) -> list[str]:
    """Return the parameters a rule claims."""
    return sorted(entry.parameter for entry in plan.entries if entry.rule == rule)


def mistakes(*arguments: object, **arm: object) -> list[tuple[str, str | None]]:
    """Return the messages and repairs of a plan that fails."""
    with pytest.raises(RecipeError) as caught:
        plan_of(*arguments, **arm)
    return [(issue.message, issue.hint) for issue in caught.value.issues]


def test_a_composite_rule_claims_what_belongs_to_the_site() -> None:
    """Weights and biases of the four maps, and nothing of the rest."""
    plan = plan_of(vit(), {**FROZEN, "expect": 3})
    expected = [
        f"blocks.{i}.attn.{n}"
        for i in range(3)
        for n in ("proj.bias", "proj.weight", "qkv.bias", "qkv.weight")
    ]

    assert claimed(plan, "attention") == expected
    assert sorted(plan.frozen) == expected


def test_depth_and_name_narrow_composites() -> None:
    """Conditions hold for the site: its own name, and its place among the attentions."""
    late = plan_of(vit(), {**FROZEN, "match": {"kind": "attention", "depth": [0.5, 1.0]}})
    named = plan_of(vit(), {**FROZEN, "match": {"kind": "attention", "layer": r"blocks\.0\.attn"}})

    assert {name[:8] for name in claimed(late, "attention")} == {"blocks.1", "blocks.2"}
    assert {name[:8] for name in claimed(named, "attention")} == {"blocks.0"}


def test_first_match_wins_within_a_composite() -> None:
    """An earlier rule takes the projection's weight away, and the plan says so."""
    first = {"id": "first", "match": r"blocks\.1\.attn\.proj", "init": "zeros"}
    plan = plan_of(vit(), first, FROZEN)
    notes = plan.entry("blocks.1.attn.qkv.weight").notes

    assert claimed(plan, "first") == ["blocks.1.attn.proj.weight"]
    assert "blocks.1.attn.proj.bias" in claimed(plan, "attention")
    assert notes == (
        "q rows 0:24, k rows 24:48, v rows 48:72; 4 heads of 6",
        "`proj.weight` belongs to this attention but is initialized by rule `first`",
    )
    assert len(plan.entry("blocks.0.attn.qkv.weight").notes) == 1


def test_a_composite_rule_may_stand_first() -> None:
    """A rule on layers behind it gets what is left; one wholly behind it is an error."""
    linear = {"id": "linear", "match": {"kind": "linear"}, "init": "zeros"}
    inside = {"id": "inside", "match": r"blocks\.\d+\.attn\.proj", "init": "zeros"}

    assert not any("attn" in name for name in claimed(plan_of(vit(), FROZEN, linear), "linear"))
    assert mistakes(vit(), FROZEN, inside)[0][0] == (
        "rule `inside` never applies: everything it matches is claimed earlier by `attention`"
    )


def test_params_narrow_composites() -> None:
    """`param` speaks of names below the site."""
    plan = plan_of(vit(), {**FROZEN, "match": {"kind": "attention", "param": r"qkv\..*"}})

    assert {name.rpartition("attn.")[2] for name in claimed(plan, "attention")} == {"qkv.weight", "qkv.bias"}


def test_initializers_of_one_tensor_are_refused() -> None:
    """A univariate law does not know what to do with a site of several tensors."""
    rule = {"id": "attention", "match": {"kind": "attention"}, "init": "zeros"}

    assert mistakes(vit(), rule)[0][0] == (
        "blocks.0.attn: `zeros` fills one tensor at a time, and this is a composite site; "
        "match its layers by name or by their own kind (and 2 more of its layers)"
    )


def test_wrong_expectations_and_names_are_told_of_sites() -> None:
    """Counts and near names are those of the sites."""
    expect = {**FROZEN, "expect": 2}
    name = {**FROZEN, "match": {"kind": "attention", "layer": r"blocks\.\d+\.attention"}}

    assert mistakes(vit(), expect)[0][0] == (
        "rule `attention` expects 2 layers and claims 3: `blocks.0.attn`, `blocks.1.attn`, `blocks.2.attn`"
    )
    assert mistakes(vit(), name) == [
        (
            (
                r"rule `attention` matches nothing in this model: no site of kind `attention` is named like "
                r"`blocks\.\d+\.attention`"
            ),
            "did you mean `blocks.0.attn` or `blocks.1.attn` or `blocks.2.attn`?",
        )
    ]


def test_an_attention_that_is_not_recognised() -> None:
    """The message says what was found, lists the linear layers, and shows the block to write."""
    model = nn.Sequential(OwnAttention(), OwnAttention())

    assert mistakes(model, FROZEN) == [
        (
            (
                "rule `attention` matches nothing in this model: no attention was recognized in it; "
                "`0` of class OwnAttention (and 1 more) looks like one: linear layers "
                "`0.mixing.to_qkv` 24 → 72, `0.to_out` 24 → 24"
            ),
            (
                "declare it: `match: {class: OwnAttention}`, "
                "`attention: {qkv: mixing.to_qkv, out: to_out, heads: 4}`, "
                "if the outputs of `mixing.to_qkv` are all queries, then all keys, then all values"
            ),
        )
    ]
    message, hint = mistakes(nn.Sequential(nn.Linear(3, 2)), FROZEN)[0]
    assert message.endswith("no layer looks like one; its linear layers are `0` 3 → 2")
    assert hint.endswith("`attention: {q: …, k: …, v: …, out: …, heads: …}`, or `qkv: …` for one fused layer")


class PartlyAttention(nn.Module):
    """An attention whose keys and values are one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(24, 24), nn.Linear(24, 48), nn.Linear(24, 24)
        self.heads = 4


class GroupedAttention(nn.Module):
    """An attention of four layers that nobody knows, with two keys for four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = nn.Linear(24, 24), nn.Linear(24, 12), nn.Linear(24, 12)
        self.merge, self.heads = nn.Linear(24, 24), 4


class Mixing(nn.Module):
    """An attention told by shapes alone: three times the outputs that the other has inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.back, self.make = nn.Linear(24, 24), nn.Linear(24, 72)


class Holder(nn.Module):
    """A block whose name speaks of attention, too, with an MLP beside it."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.inner, self.fc = attention, nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))


class AttentionBlock(Holder):
    """The same under that name."""


SHOWN = {
    "fused": (OwnAttention, "{class: OwnAttention}", "{qkv: mixing.to_qkv, out: to_out, heads: 4}"),
    "partly fused": (PartlyAttention, "{class: PartlyAttention}", "{q: q, kv: kv, out: proj, heads: 4}"),
    "grouped": (
        GroupedAttention,
        "{class: GroupedAttention}",
        "{q: queries, k: keys, v: values, out: merge, heads: 4, kv_heads: 2}",
    ),
    "by shape": (Mixing, r"'blocks\.\d+\.inner'", "{qkv: make, out: back, heads: …}"),
}


@pytest.mark.parametrize("holder", [Holder, AttentionBlock])
@pytest.mark.parametrize("name", SHOWN)
def test_the_block_that_is_shown_can_be_copied(name: str, holder: type[Holder]) -> None:
    """It is that of the innermost layer, has all that could be told, and makes the rule claim every one."""
    attention, match, block = SHOWN[name]
    model = nn.ModuleDict({"blocks": nn.ModuleList([holder(attention()) for _ in range(2)])})
    ((_, hint),) = mistakes(model, FROZEN)

    assert hint.startswith(f"declare it: `match: {match}`, `attention: {block}`")
    declared = yaml.safe_load(block.replace("…", "4"))
    for condition in (yaml.safe_load(match), {"kind": "attention"}):
        rule = {
            "id": "a",
            "match": condition,
            "attention": declared,
            "init": "mimetic_attention",
            "expect": 2,
        }
        plan = plan_of(model, rule)
        plan.apply(model)
        assert all(".inner." in name for name in claimed(plan, "a"))


def test_an_attention_that_is_named_but_not_recognised() -> None:
    """Beside others that are, the one the rule names is shown, not their names."""
    model = nn.ModuleDict({"own": OwnAttention(), "known": nn.MultiheadAttention(24, 4)})
    for match in ({"kind": "attention", "layer": "own"}, {"kind": "attention", "class": "OwnAttention"}):
        ((message, hint),) = mistakes(model, {**FROZEN, "match": match})
        assert message == (
            "rule `attention` matches nothing in this model: the layer it names was not recognized as an "
            "attention; `own` of class OwnAttention looks like one: linear layers "
            "`own.mixing.to_qkv` 24 → 72, `own.to_out` 24 → 24"
        )
        assert "`attention: {qkv: mixing.to_qkv, out: to_out, heads: 4}`" in hint


def test_a_declaration_that_finds_no_layer() -> None:
    """Where it would hold is said; where nowhere, which linear layers there are."""
    model = nn.Sequential(Own(), nn.GELU(), Own())
    rule = {"id": "own", "attention": BLOCK, "freeze": True}
    nowhere = {**rule, "match": {"kind": "attention"}, "attention": {**BLOCK, "out": "away"}}
    repair = "linear layers `mixing.to_qkv`, `to_out` are below `0`, `2`, of class `Own`"

    assert mistakes(model, {**rule, "match": {"class": "Owner"}}) == [
        ("rule `own` matches nothing in this model: no layer is of class `Owner`", repair)
    ]
    assert mistakes(model, {**rule, "match": "blocks"}) == [
        ("rule `own` matches nothing in this model: no layer is named like `blocks`", repair)
    ]
    ((message, hint),) = mistakes(model, nowhere)
    assert message.endswith("no layer has linear layers `mixing.to_qkv`, `away` below it")
    assert hint.startswith("the model's linear layers are `0.mixing.to_qkv` 24 → 72, ")


def test_heads_that_each_layer_keeps() -> None:
    """Where layers differ the block that is shown leaves them out, and each has its own."""
    model = nn.Sequential(PartlyAttention(), PartlyAttention())
    model[1].heads = 2
    ((_, hint),) = mistakes(model, FROZEN)
    assert "`attention: {q: q, kv: kv, out: proj}`" in hint

    rule = {**FROZEN, "attention": {"q": "q", "kv": "kv", "out": "proj"}}
    notes = [plan_of(model, rule).entry(f"{i}.kv.weight").notes[0] for i in range(2)]
    assert notes == ["k rows 0:24, v rows 24:48; 4 heads of 6", "k rows 0:24, v rows 24:48; 2 heads of 12"]
    declared = {**rule, "attention": {**rule["attention"], "heads": 4}}
    said = "declared with 4 heads, but the layer itself has 2"
    assert [said in plan_of(model, declared).entry(f"{i}.q.weight").notes for i in range(2)] == [False, True]
    del model[0].heads
    assert mistakes(model, rule)[0][0] == "cannot infer the number of heads of `0`; set `heads: …`"


def test_a_declared_attention_knows_the_grid() -> None:
    """As one that is recognised does, from the model's only table of positions."""
    model = nn.ModuleDict({"patch": nn.Conv2d(3, 24, 4, stride=4), "attn": PartlyAttention()})
    model.register_parameter("pos_embed", nn.Parameter(torch.zeros(1, 17, 24)))
    block = {"q": "q", "kv": "kv", "out": "proj"}
    rule = {"id": "a", "match": {"kind": "attention"}, "attention": block, "init": "impulse_attention"}

    assert plan_of(model, rule).entry("attn.q.weight").arguments["grid"] == [4, 4]


def test_a_table_that_is_not_recognised() -> None:
    """Tensors of such a shape are listed, matrices of layers left out."""
    model = nn.Sequential(nn.Linear(24, 24))
    model.register_parameter("places", nn.Parameter(torch.zeros(1, 16, 24)))
    rule = {"id": "table", "match": {"kind": "position"}, "init": "sincos2d"}
    ((message, hint),) = mistakes(model, rule)

    assert message.endswith("no position table was recognized in it")
    assert hint.endswith("and shapes (T, D) or (1, T, D); parameters of such a shape: `places` 1×16×24")
    assert mistakes(nn.Sequential(nn.Linear(24, 24)), rule)[0][1].endswith("no parameter has such a shape")


def test_a_model_that_is_one_attention() -> None:
    """It is matched by its class."""
    ((message, hint),) = mistakes(PartlyAttention(), FROZEN)

    assert "the model itself, of class PartlyAttention, looks like one: linear layers `q` 24 → 24" in message
    assert hint.startswith("declare it: `match: {class: PartlyAttention}`, `attention: {q: q, kv: kv,")
    rule = {"id": "a", "match": {"class": "PartlyAttention"}, "init": "mimetic_attention"}
    plan = plan_of(PartlyAttention(), {**rule, "attention": {"q": "q", "kv": "kv", "out": "proj"}})
    assert len(claimed(plan, "a")) == 6


def test_a_declared_layer_that_is_tied() -> None:
    """A weight that another layer owns is no map of its own."""
    model = GroupedAttention()
    model.values.weight = model.keys.weight
    block = {"q": "queries", "k": "keys", "v": "values", "out": "merge", "heads": 4, "kv_heads": 2}
    rule = {"id": "a", "match": {"kind": "attention"}, "attention": block, "freeze": True}

    assert mistakes(nn.Sequential(model), rule)[0][0] == (
        "`0.values` is declared as a separate map, but its weight is tied to another layer's"
    )


def test_a_declared_pair() -> None:
    """`mlp:` makes the site; what is not recognised is shown with the block that declares it."""
    model = nn.Sequential(Holder(nn.Identity()), Holder(nn.Identity()))
    rule = {"id": "m", "match": {"kind": "mlp"}, "init": "mimetic_mlp"}
    found = (
        "`0.fc` of class Sequential (and 1 more) looks like one: "
        "linear layers `0.fc.0` 24 → 48, `0.fc.2` 48 → 24"
    )
    ((message, hint),) = mistakes(model, rule)
    assert message.endswith(f"no MLP pair was recognized in it; {found}")
    assert hint.endswith(r"declare it: `match: '\d+\.fc'`, `mlp: {fc1: '0', fc2: '2'}`")

    pair = {"fc1": "0", "fc2": "2"}
    for match in ({"kind": "mlp"}, r"\d+\.fc"):
        plan = plan_of(model, {**rule, "match": match, "mlp": pair, "expect": 2})
        assert claimed(plan, "m") == ["0.fc.0.weight", "1.fc.0.weight"]
        assert plan.entry("0.fc.0.weight").notes == ("the first of the pair 24 → 48 → 24",)
    wrong = {**rule, "match": r"\d+", "mlp": {"fc1": "fc.0", "fc2": "fc.0.0"}}
    assert "`0.fc.0.0` is declared as a linear layer of an MLP pair" in mistakes(model, wrong)[0][0]
    square = nn.Sequential(nn.Linear(24, 48), nn.Linear(24, 48))
    assert mistakes(nn.Sequential(square), {**rule, "match": "0", "mlp": {"fc1": "0", "fc2": "1"}})[0][0] == (
        "`0` has no MLP pair as declared: `0` 24 → 48, `1` 24 → 48; "
        "the second layer must map back to the input width of the first"
    )


def test_a_declared_attention() -> None:
    """The declaration makes the site, in the order of execution."""
    rule = {"id": "own", "match": {"class": "Own"}, "attention": BLOCK, "freeze": True, "expect": 2}
    plan = plan_of(nn.Sequential(Own(), nn.GELU(), Own()), rule)

    assert claimed(plan, "own") == [
        f"{i}.{n}"
        for i in (0, 2)
        for n in ("mixing.to_qkv.bias", "mixing.to_qkv.weight", "to_out.bias", "to_out.weight")
    ]
    assert plan.entry("2.mixing.to_qkv.weight").notes[0] == (
        "q rows 0:24, k rows 24:48, v rows 48:72; 4 heads of 6"
    )


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {**BLOCK, "out": "out"},
            (
                "`0.out` is declared as a linear layer of an attention, but there is no layer of that name; "
                "linear layers below `0`: `mixing.to_qkv`, `to_out`"
            ),
        ),
        (
            {**BLOCK, "heads": 5},
            (
                "`0` has no attention of 5 heads as declared: `mixing.to_qkv` 24 → 72, `to_out` 24 → 24; "
                "1, 2, 3, 4, 6, 8, 12, 24 would fit"
            ),
        ),
        (
            {**BLOCK, "kv_heads": 2},
            (
                "`0` has no attention of 4 heads and 2 of keys and values as declared: "
                "`mixing.to_qkv` 24 → 72, `to_out` 24 → 24; 2 would fit"
            ),
        ),
    ],
)
def test_declarations_are_checked(block: dict, expected: str) -> None:
    """Missing layers and shapes that contradict the heads are told, once."""
    rule = {"id": "own", "match": {"class": "Own"}, "attention": block, "freeze": True}

    assert [message for message, _ in mistakes(nn.Sequential(Own()), rule)] == [expected]


def test_tied_attentions_appear_once() -> None:
    """A block used twice is one site, matched under either name."""
    block = vit().blocks[0]
    model = nn.ModuleDict({"first": block, "second": block})
    rule = {**FROZEN, "match": {"kind": "attention", "layer": r"second\.attn"}, "expect": 1}

    assert claimed(plan_of(model, rule), "attention") == [
        f"first.attn.{n}" for n in ("proj.bias", "proj.weight", "qkv.bias", "qkv.weight")
    ]


def test_explain_asks_through_the_site() -> None:
    """The verdict on a parameter of a composite is that on the site; so is the verdict on the site's name."""
    recipe = load(
        {"recipe": 1, "name": "t", "init": [{"id": "l", "match": {"kind": "norm"}, "init": "ones"}, FROZEN]}
    )
    matching = match_rules(recipe.arms["main"].init, find_sites(vit()))
    found = explain(matching, "blocks.0.attn")

    assert [(item.parameter.name, item.site.kind) for item in found] == [
        (f"blocks.0.attn.{n}", "attention") for n in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    ]
    assert [verdict.reason for verdict in found[0].verdicts] == ["it is of kind `linear`, not `norm`", None]
    other = explain(matching, "blocks.0.mlp.fc1.weight")[0]
    assert other.verdicts[1].reason == "it is not part of a site of kind `attention`"


class _Largest(TorchDispatchMode):
    """Keep the size of the largest tensor with values that is made inside."""

    largest = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Run one call."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not result.is_meta:
            self.largest = max(self.largest, result.numel())
        return result


def test_planning_allocates_no_weights() -> None:
    """ViT-B/16 on the meta device: whatever begins its layers, the plan is made without making a tensor."""
    table = {"id": "table", "match": {"kind": "position"}, "init": "sincos2d"}
    attentions = {"mimetic_attention": 48, "conditioned_attention": 12}
    impulse = {"type": "impulse_attention", "positions": "table"}
    counts = [
        *(("linear", init, 49) for init in ("trunc_normal", "kaiming_normal")),
        *(("attention", init, count) for init, count in attentions.items()),
        ("attention", impulse, 24),
    ]
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    with _Largest() as made:
        graph = find_sites(model)
        for kind, init, count in counts:
            rule = {"id": "a", "match": {"kind": kind}, "init": init}
            arm = load({"recipe": 1, "name": "test", "init": [table, rule]}).arms["main"]
            assert len(claimed(resolve(arm, graph, seed=0), "a")) == count

    assert made.largest < 1000


def test_progress_is_told_after_each_draw() -> None:
    """A caller may show how far the draws are; what it raises comes before anything is written."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=4
    )
    before = model.blocks[0].attn.qkv.weight.clone()
    plan = plan_of(model, {"id": "a", "match": {"kind": "attention"}, "init": "mimetic_attention"})
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.apply(model, progress=stop)
    assert torch.equal(before, model.blocks[0].attn.qkv.weight)
    plan.apply(model, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
