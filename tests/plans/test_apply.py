"""Apply writes what the plan says, verifies it, and depends on nothing but seed and names."""

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import nn

from mimetic.errors import RunError, UserError
from mimetic.initializers.resolved import Moments, ResolvedInit

from .conftest import Small, plan_of

FILTERS = {"id": "filters", "match": {"kind": "depthwise_conv"}, "covariance": {"type": "closed_form"}}
STEM = {"id": "stem", "match": "stem", "init": {"type": "kaiming_normal", "nonlinearity": "relu"}}
HEAD = {"id": "head", "match": "head", "init": "orthogonal"}


def digests(model: nn.Module) -> dict[str, str]:
    """Return a digest of each parameter's bytes."""
    return {
        name: sha256(p.detach().contiguous().numpy().tobytes()).hexdigest()[:16]
        for name, p in model.named_parameters()
    }


def test_only_named_parameters_change(small: Small) -> None:
    """What no rule matches keeps its bytes."""
    before = digests(small)
    plan_of(small, FILTERS).apply(small)
    after = digests(small)

    assert {name for name in before if before[name] != after[name]} == {
        "blocks.0.0.weight",
        "blocks.1.0.weight",
    }


def test_permuted_rules_give_the_same_weights() -> None:
    """The order of rules that do not compete changes no byte."""
    models = [Small(), Small()]
    models[1].load_state_dict(models[0].state_dict())
    plan_of(models[0], FILTERS, STEM, HEAD).apply(models[0])
    plan_of(models[1], HEAD, STEM, FILTERS).apply(models[1])

    assert digests(models[0]) == digests(models[1])


def test_an_unrelated_layer_changes_nothing() -> None:
    """Adding a layer moves no other layer's draw."""

    class Larger(Small):
        """The small network with one more layer in front of the others."""

        def __init__(self) -> None:
            """Add the layer first, so that it draws first where draws have an order."""
            super().__init__()
            self.before = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Run the extra layer first."""
            return super().forward(self.before(x))

    small, larger = Small(), Larger()
    plan_of(small, STEM, HEAD).apply(small)
    plan_of(larger, STEM, HEAD, {"id": "before", "match": "before", "init": "xavier_uniform"}).apply(larger)

    assert digests(small)["stem.weight"] == digests(larger)["stem.weight"]
    assert digests(small)["head.weight"] == digests(larger)["head.weight"]


def applied(threads: int) -> list[str]:
    """Return digests of the drawn weights, in this process, with a number of threads."""
    model = Small()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plan_of(model, FILTERS, STEM, HEAD).apply(model)
    finally:
        torch.set_num_threads(before)
    kept = digests(model)
    return [kept[n] for n in ("stem.weight", "blocks.0.0.weight", "blocks.1.0.weight", "head.weight")]


def test_number_of_threads_changes_nothing() -> None:
    """One thread or several give the same bytes."""
    assert applied(1) == applied(2)


def test_golden_digests() -> None:
    """The bytes are those of the day they were recorded: a change of law or of torch's stream shows."""
    assert applied(1) == ["b38423b5b9a8e266", "766412a528698d68", "d09211d8cf7be646", "8d8f103688a3017f"]


@pytest.mark.slow
def test_another_process_gives_the_same_weights() -> None:
    """Nothing of the process enters the draw, its hash seed included."""
    lines = ("import sys", "sys.path.insert(0, sys.argv[1])", "from tests.plans.test_apply import applied")
    root = str(Path(__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", "\n".join((*lines, "print(applied(2))")), root],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert answer.strip() == str(applied(1))


def test_global_stream_is_left_alone(small: Small) -> None:
    """Applying a plan draws nothing from torch's global stream."""
    before = torch.get_rng_state()
    plan_of(small, FILTERS, STEM, HEAD, {"id": "d", "match": {"kind": "norm"}, "init": "default"}).apply(
        small
    )

    assert torch.equal(before, torch.get_rng_state())


def test_low_precision_gets_the_rounded_draw(small: Small) -> None:
    """A bfloat16 model holds the float32 draw, rounded."""
    half = Small().to(torch.bfloat16)
    plan_of(small, STEM).apply(small)
    plan = plan_of(Small(), STEM)
    plan = replace(plan, entries=tuple(replace(e, dtype="bfloat16") for e in plan.entries))
    plan.apply(half)

    assert torch.equal(half.stem.weight, small.stem.weight.to(torch.bfloat16))


def test_frozen_parameters_want_no_gradient(small: Small) -> None:
    """`freeze: true` takes the gradient of what the rule claims, and of nothing else."""
    plan_of(small, {**FILTERS, "freeze": True}).apply(small)

    assert [n for n, p in small.named_parameters() if not p.requires_grad] == [
        "blocks.0.0.weight",
        "blocks.1.0.weight",
    ]


def test_another_model_is_refused_before_anything_is_written(small: Small) -> None:
    """A plan made for other shapes is not applied half."""
    plan = plan_of(small, STEM, HEAD)
    other = Small()
    other.head = nn.Linear(8, 5)
    before = digests(other)

    with pytest.raises(UserError, match="does not match the model: 2 parameters"):
        plan.apply(other)
    assert digests(other) == before


def test_meta_model_is_refused(small: Small) -> None:
    """A model without values cannot be initialized."""
    plan = plan_of(small, STEM)
    with pytest.raises(UserError, match="meta device"):
        plan.apply(Small().to("meta"))


@pytest.mark.parametrize("factor", [0.5, 2.0, float("nan")])
def test_a_draw_that_misses_its_promise_fails(small: Small, factor: float) -> None:
    """Verification catches an initializer whose values do not follow its own prediction."""
    plan = plan_of(small, STEM)
    (action,) = plan.actions
    honest = action.init

    def wrong(streams: object, layer: nn.Module) -> dict[str, torch.Tensor]:
        return {name: factor * t for name, t in honest.sample(streams, layer).items()}  # type: ignore[arg-type]

    lying = ResolvedInit(name=honest.name, arguments=honest.arguments, sample=wrong, moments=honest.moments)
    with pytest.raises(RunError, match=r"`stem\.weight`"):
        replace(plan, actions=(replace(action, init=lying),)).apply(small)


def test_certain_values_are_compared_to_rounding(small: Small) -> None:
    """A constant that is a little off is caught as well."""
    plan = plan_of(
        small,
        {"id": "b", "match": {"kind": "linear", "param": "bias"}, "init": {"type": "constant", "value": 0.5}},
    )
    (action,) = plan.actions
    off = ResolvedInit(
        name="constant",
        arguments={},
        sample=lambda _s, _l: {"bias": torch.full((4,), 0.5001)},
        moments={"bias": Moments(0.5, 0.0, 0)},
    )

    plan.apply(small)
    with pytest.raises(RunError, match="predicted"):
        replace(plan, actions=(replace(action, init=off),)).apply(small)
