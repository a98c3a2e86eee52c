"""The calls for a loop of one's own: a user's module, recipes in every form, wrappers, and mistakes."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mimetic
from mimetic.api.starting import choose_arm
from mimetic.errors import UserError

RULES: dict[str, Any] = {
    "recipe": 1,
    "init": [
        {
            "id": "filters",
            "match": {"kind": "depthwise_conv"},
            "covariance": {"type": "closed_form", "width": 0.3},
        },
        {"id": "mix", "match": "mix", "init": {"type": "orthogonal"}},
        {"id": "head", "match": {"kind": "linear"}, "init": {"type": "normal", "std": 0.02}, "freeze": True},
    ],
}

TEXT = """\
recipe: 1
init:
  - id: filters
    match: {kind: depthwise_conv}
    covariance: {type: closed_form, width: 0.3}
  - {id: mix, match: mix, init: {type: orthogonal}}
  - {id: head, match: {kind: linear}, init: {type: normal, std: 0.02}, freeze: true}
"""


class Own(nn.Module):
    """A module mimetic has never seen."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.filters = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.norm = nn.BatchNorm2d(16)
        self.mix = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits."""
        x_NCHW = self.norm(self.filters(self.stem(images_NCHW)).relu())
        return self.head(self.mix(x_NCHW).mean((2, 3)))


def own() -> Own:
    """Return the module with the same values each time."""
    torch.manual_seed(0)
    return Own()


def values(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> None:
    """Compare bit by bit."""
    assert list(expected) == list(actual)
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name


def test_path_mapping_and_recipe_are_one(tmp_path: Path) -> None:
    """A recipe means the same in each form it may be given in."""
    path = tmp_path / "own.yaml"
    path.write_text(TEXT, encoding="utf-8")
    forms = [str(path), path, RULES, mimetic.load(RULES), mimetic.load(path)]
    models = [own() for _ in forms]
    plans = [mimetic.initialize(model, form, seed=3) for model, form in zip(models, forms, strict=True)]
    assert {plan.hash for plan in plans} == {plans[0].hash}
    for model in models[1:]:
        assert_same(values(models[0]), values(model))


def test_only_what_rules_name_is_written() -> None:
    """The rest keeps its values bit by bit; what is frozen learns nothing."""
    model = own()
    plan = mimetic.initialize(model, RULES, seed=1)
    before, after = values(own()), values(model)
    written = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert written == {"filters.weight", "mix.weight", "head.weight"}
    assert plan.frozen == ("head.weight",)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.weight"]


def test_seed_decides() -> None:
    """Seed 0 unless given; equal seeds are equal bits, and the global stream is neither read nor moved."""
    first, second, other = own(), own(), own()
    mimetic.initialize(first, RULES)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    mimetic.initialize(second, RULES, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    mimetic.initialize(other, RULES, seed=1)
    assert_same(values(first), values(second))
    assert not torch.equal(first.filters.weight, other.filters.weight)


def test_plan_first_apply_later() -> None:
    """`plan` touches nothing; applied, it is what `initialize` does; it can be made on the meta device."""
    model, expected = own(), own()
    before = values(model)
    plan = mimetic.plan(model, RULES, seed=5)
    assert_same(before, values(model))
    mimetic.initialize(expected, RULES, seed=5)
    plan.apply(model)
    assert_same(values(expected), values(model))
    with torch.device("meta"):
        abstract = Own()
    assert mimetic.plan(abstract, RULES, seed=5).hash == plan.hash


def test_a_loop_of_ones_own() -> None:
    """A plain PyTorch loop learns; the frozen head stays."""
    model = own()
    mimetic.initialize(model, RULES)
    head = model.head.weight.detach().clone()
    images_NCHW = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels_N = (images_NCHW.mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images_NCHW), labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(head, model.head.weight)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    ],
    ids=["data-parallel", "compiled", "compiled-in-parallel", "parallel-in-compiled"],
)
def test_wrapped_models_begin_as_bare_ones(wrap: Any) -> None:
    """Wrapper segments are no part of a name, so the draws are the same."""
    bare, inner = own(), own()
    expected = mimetic.initialize(bare, RULES, seed=2, example=torch.zeros(1, 1, 8, 8))
    wrapped = wrap(inner)
    actual = mimetic.initialize(wrapped, RULES, seed=2, example=torch.zeros(1, 1, 8, 8))
    assert expected.hash == actual.hash
    assert_same(values(bare), values(inner))


def test_arms_must_be_chosen() -> None:
    """A recipe of several arms asks which; of one it takes that one."""
    recipe = {"recipe": 1, "name": "two", "arms": {"a": {}, "b": {"init": RULES["init"]}}}
    model = own()
    before = values(model)
    with pytest.raises(UserError, match="recipe `two` has several arms, choose one with `arm`: `a`, `b`"):
        mimetic.initialize(model, recipe)
    with pytest.raises(UserError, match="recipe `two` has no arm `c`"):
        mimetic.initialize(model, recipe, arm="c")
    assert_same(before, values(model))
    mimetic.initialize(model, recipe, arm="a")
    assert_same(before, values(model))
    mimetic.initialize(model, recipe, arm="b")
    assert not torch.equal(before["mix.weight"], model.mix.weight)
    assert choose_arm(mimetic.load(RULES), None) == "main"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"match": "nope", "init": "zeros"}], "matches nothing"),
        ([{"match": {"kind": "linear"}, "init": "zeros", "expect": 3}], "expect"),
        ([{"match": {"kind": "linear"}, "covariance": "closed_form"}], "linear"),
        ([{"match": "mix", "init": "zeros"}, {"match": "mix", "init": "ones"}], "shadow|claimed|earlier"),
        ([{"match": "mix", "init": "nothing_like_it"}], "nothing_like_it"),
    ],
)
def test_mistakes_come_before_a_tensor_is_touched(rules: list[dict[str, Any]], said: str) -> None:
    """A good rule beside a wrong one writes nothing."""
    model = own()
    before = values(model)
    recipe = {"recipe": 1, "init": [{"match": "stem", "init": "zeros"}, *rules]}
    with pytest.raises(mimetic.RecipeError, match=said):
        mimetic.initialize(model, recipe)
    assert_same(before, values(model))


def test_mistakes_name_their_place(tmp_path: Path) -> None:
    """An error of resolution points into the file, as errors of the text do."""
    path = tmp_path / "own.yaml"
    path.write_text(TEXT.replace("match: mix", "match: mixx"), encoding="utf-8")
    with pytest.raises(mimetic.RecipeError) as caught:
        mimetic.plan(own(), path)
    assert str(caught.value).startswith(f"{path}:6:5: ")
    assert "did you mean `mix`?" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """No traceback of the system's, a user's mistake."""
    with pytest.raises(UserError, match="there is no such file"):
        mimetic.initialize(own(), tmp_path / "none.yaml")


def test_a_model_without_memory() -> None:
    """Parameters on the meta device cannot be written, and this is said."""
    with torch.device("meta"):
        model = Own()
    with pytest.raises(UserError, match="meta"):
        mimetic.initialize(model, RULES)


CALLS: dict[str, Callable[[Any, Any, Any], object]] = {
    "plan": lambda model, recipe, seed: mimetic.plan(model, recipe, seed=seed),
    "initialize": lambda model, recipe, seed: mimetic.initialize(model, recipe, seed=seed),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("recipe", [None, [RULES], b"recipe: 1", 3, Path], ids=repr)
def test_what_is_no_recipe(call: str, recipe: object) -> None:
    """It is named, and no exception of Python's own comes out."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-R048"):
        CALLS[call](own(), recipe, 0)


@pytest.mark.parametrize("call", CALLS)
def test_exchanged_arguments(call: str) -> None:
    """The model comes first in every call."""
    with pytest.raises(UserError, match="model comes first", check=lambda error: error.code == "MIM-A022"):
        CALLS[call](RULES, own(), 0)


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), np.array(5), torch.tensor(5)], ids=repr)
def test_seeds_of_other_libraries(seed: object) -> None:
    """They have the streams and the hash of Python's integer."""
    one, other = own(), own()
    expected = mimetic.initialize(one, RULES, seed=5)

    found = mimetic.initialize(other, RULES, seed=seed)

    assert (found.hash, found.to_dict()) == (expected.hash, expected.to_dict())
    assert_same(values(one), values(other))


BAD_SEEDS = [True, np.True_, torch.tensor(True), 1.0, None, "0", -1, torch.tensor([1, 2]), np.float64(1.0)]
SEEDED: dict[str, Callable[[Any], object]] = {
    "plan": lambda seed: mimetic.plan(own(), RULES, seed=seed),
    "initialize": lambda seed: mimetic.initialize(own(), RULES, seed=seed),
    "harvest": lambda seed: mimetic.harvest(own(), torch.ones(2, 1, 8, 8), seed=seed),
    "ansatz": lambda seed: mimetic.ansatz(own(), torch.ones(2, 1, 8, 8), seed=seed),
    "resample": lambda seed: mimetic.resample(own(), own(), torch.ones(2, 1, 8, 8), seed=seed),
    "similarity": lambda seed: mimetic.similarity(own(), own(), seed=seed),
}


@pytest.mark.parametrize("call", SEEDED)
@pytest.mark.parametrize("seed", BAD_SEEDS, ids=repr)
def test_seeds_are_whole_numbers(call: str, seed: object) -> None:
    """What would have a stream of its own is refused by every call that takes a seed."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-A023"):
        SEEDED[call](seed)


class Kind(StrEnum):
    """A name from an enumeration."""

    NORMAL = "normal"


@pytest.mark.parametrize(
    ("std", "kind", "rules"),
    [
        (np.float64(0.5), "normal", list),
        (np.float32(0.5), Kind.NORMAL, tuple),
        (torch.tensor(0.5), np.str_("normal"), list),
    ],
)
def test_values_of_other_libraries(std: object, kind: object, rules: type) -> None:
    """A mapping from Python is the recipe that its YAML would be."""
    plain = {"recipe": 1, "init": [{"id": "r", "match": "mix", "init": {"type": "normal", "std": 0.5}}]}
    rule = {"id": "r", "match": "mix", "init": {"type": kind, "std": std}}

    found = mimetic.load({"recipe": np.int64(1), "init": rules([rule]), "seeds": np.arange(2)})

    assert found == mimetic.load({**plain, "seeds": [0, 1]})
    assert mimetic.plan(own(), found).hash == mimetic.plan(own(), plain).hash


@pytest.mark.parametrize(
    "std", [np.True_, torch.tensor(True), True, np.array([0.5]), "0.5", None, {0.5}], ids=repr
)
def test_values_of_other_kinds(std: object) -> None:
    """They are refused as in YAML."""
    rule = {"id": "r", "match": "mix", "init": {"type": "normal", "std": std}}
    with pytest.raises(mimetic.RecipeError) as caught:
        mimetic.load({"recipe": 1, "init": [rule]})
    assert [(issue.code, issue.path[-1]) for issue in caught.value.issues] == [("MIM-R004", "std")]
