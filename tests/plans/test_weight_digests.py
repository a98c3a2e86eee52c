"""Initial weights of every shipped recipe are, byte for byte, those stored in `weight_digests.json`.

The stored digests were computed before the package was restructured, so they also prove that the new
structure changed no weights. No arm is excepted: the corrections to layer names (a real submodule named
`module`) and to `init: default` affect no shipped recipe. A change of weights breaks the comparison with
finished studies. If one is intended, write the digests again (see `weight_digests.py`), and document it.

What the bytes depend on beside the code, found by running with other settings of torch and MKL:

- Covariances, closed-form ones too, go through BLAS and LAPACK, as do rotations. They hold for the stored
  version of torch, vector unit (`torch.backends.cpu.get_cpu_capability`) and linear algebra.
- Elementwise draws hold with every BLAS. They depend on the vector unit: where there is one, a
  multiplication and the addition after it are rounded once.

Where this machine has another fingerprint than the stored one, only arms with elementwise draws are
compared; with another vector unit, none. A processor with AVX-512 takes the stored AVX2
(`tests/conftest.py`). A few cheap recipes with diverse initializers run each time; the others are slow.
Those of one folder are one test, because they share networks, which are initialized once.
"""

import json
from itertools import groupby
from typing import Any

import pytest

from mimetic.recipe.load import load
from mimetic.recipe.recipe import Arm
from mimetic.recipe.shipped import shipped
from tests.plans.weight_digests import STORED, fingerprint, weight_digests

FAST = {
    "papers/2210.03651/transfer-small",  # covariances of a trained network, and of its change
    "papers/2301.11360/small",  # linear combinations
    "papers/2305.09828/small",  # mimetic attention, impulse attention, conditioning
    "papers/2305.18512/small",  # rainbow
    "papers/2309.00570/start-small",  # covariances that a learner learned
    "papers/2311.18823/small",  # weight selection
    "papers/2410.11135/small",  # state-space models
    "papers/nfm-agop/small",  # NFM, AGOP
    "quickstart",  # closed form
}

ELEMENTWISE = ("mimetic.initializers.univariate:", "mimetic.initializers.default:")
"""Modules whose initializers draw entry by entry, `orthogonal` excepted."""

STATE: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))


def draws_entries(arm: Arm) -> bool:
    """Return whether an arm's rules need no linear algebra."""
    return all(
        rule.covariance is None
        and rule.init is not None
        and rule.init.functions["impl"].startswith(ELEMENTWISE)
        and rule.init.type_name() != "orthogonal"
        for rule in arm.init
    )


def everything(_arm: Arm) -> bool:
    """Return True: all arms are compared."""
    return True


SLOW = [
    pytest.param(list(names), id=folder, marks=[pytest.mark.slow, pytest.mark.timeout(900)])
    for folder, names in groupby(
        sorted(shipped().keys() - FAST), key=lambda name: name.rpartition("/")[0] or name
    )
]


@pytest.mark.parametrize("names", [*(pytest.param([name], id=name) for name in sorted(FAST)), *SLOW])
def test_initial_weights_are_those_stored(names: list[str]) -> None:
    """Bytes of all parameters and buffers, at the first seed of each arm and stage."""
    here, there = fingerprint(), STATE["fingerprint"]
    if here["cpu"] != there["cpu"]:
        pytest.skip(f"digests were stored on a CPU with {there['cpu']}, and this has {here['cpu']}")
    same = here == there

    wanted = everything if same else draws_entries
    found = {name: weight_digests(load(shipped()[name]), wanted) for name in names}

    stored = {name: STATE["digests"][name] for name in names}
    if not same:
        stored = {name: {arm: stored[name][arm] for arm in arms} for name, arms in found.items()}
    assert found == stored
    if not any(found.values()) and any(STATE["digests"][name] for name in names):
        pytest.skip("all arms need linear algebra, and this torch or BLAS is another than the stored one")


def test_every_shipped_recipe_has_digests() -> None:
    """A new recipe needs its digests: `python -m tests.plans.weight_digests`."""
    assert STATE["digests"].keys() == shipped().keys()
