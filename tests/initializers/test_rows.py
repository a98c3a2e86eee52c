"""New rows of a table: mean and covariance of its old rows, which stay as they are."""

import math
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mimetic
from mimetic.errors import UserError
from mimetic.initializers.rows import drawn_rows


def keyed(seed: int = 0) -> torch.Generator:
    """Return a generator of a seed."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize(("count", "old", "columns"), [(10_000, 40, 120), (10_000, 400, 60), (15, 400, 60)])
def test_rows_have_the_moments_of_old_rows(count: int, old: int, columns: int, tau: float) -> None:
    """More columns than rows, fewer, and few draws, which take another way: within sampling error."""
    mixed = torch.randn(old, columns, generator=keyed(1)) @ torch.randn(columns, columns, generator=keyed(2))
    old_ND = mixed / math.sqrt(columns) + 3.0 * torch.randn(columns, generator=keyed(3))
    draws = [drawn_rows(old_ND, count, tau, keyed(4 + n), name="rows") for n in range(10_000 // count)]
    new_MD = torch.cat(draws)
    mean_D, cov_DD = old_ND.double().mean(0), tau**2 * torch.cov(old_ND.double().T)
    total = len(new_MD)
    trace, energy = float(cov_DD.trace()), float(cov_DD.square().sum())
    assert float((new_MD.mean(0) - mean_D).norm()) < 1.5 * math.sqrt(trace / total)
    error = float((torch.cov(new_MD.T) - cov_DD).norm())
    assert error < 1.5 * math.sqrt((trace**2 + energy) / total)
    off = new_MD[:200] - mean_D  # in the span of the old rows, also where Σ is singular
    span = torch.linalg.lstsq((old_ND.double() - mean_D).T, off.T).solution
    torch.testing.assert_close((old_ND.double() - mean_D).T @ span, off.T, rtol=1e-6, atol=1e-8)


def test_no_spread_is_the_mean() -> None:
    """τ = 0, or a single old row."""
    old_ND = torch.randn(7, 3, generator=keyed())
    expected = old_ND.double().mean(0).expand(4, 3)
    torch.testing.assert_close(drawn_rows(old_ND, 4, 0.0, keyed(), name="rows"), expected)
    torch.testing.assert_close(
        drawn_rows(old_ND[:1], 4, 1.0, keyed(), name="rows"), old_ND[:1].double().expand(4, 3)
    )


@pytest.mark.slow
def test_a_table_of_gpt2_takes_two_seconds() -> None:
    """50257 rows of 768, 64 new ones: CPU time of one core, the best of three."""
    old_ND, times = torch.randn(50257, 768, generator=keyed()), []
    for _ in range(3):
        start = time.process_time()
        drawn_rows(old_ND, 64, 1.0, keyed(), name="rows")
        times.append(time.process_time() - start)
    assert min(times) < 2.0


def rule(**init: object) -> dict[str, object]:
    """Return a recipe of one rule for a table."""
    return {"recipe": 1, "init": [{"match": {"layer": "0", "param": ".*"}, "init": {"type": "rows", **init}}]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_old_rows_keep_their_bytes(dtype: torch.dtype) -> None:
    """Of a head with its bias; new rows depend on the seed and the name alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12)).to(dtype)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    plan = mimetic.initialize(model, rule(old=9), seed=3)
    first = {name: t.clone() for name, t in model.state_dict().items()}
    mimetic.initialize(model, rule(old=9), seed=3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor[:9], before[name][:9])
        assert not torch.equal(tensor[9:], before[name][9:])
        assert torch.equal(tensor, first[name])
    assert any("9 old rows" in note for note in plan.entries[0].notes)


def test_padding_is_no_sample_and_stays() -> None:
    """Old padding keeps its bytes, new padding is zero."""
    table = nn.Embedding(10, 4, padding_idx=0)
    with torch.no_grad():
        table.weight[0] = 1e6
    mimetic.initialize(nn.Sequential(table), rule(old=6))
    assert table.weight[0].tolist() == [1e6] * 4
    assert float(table.weight.detach()[6:].abs().max()) < 100.0
    new = nn.Embedding(10, 4, padding_idx=9)
    mimetic.initialize(nn.Sequential(new), rule(old=6))
    assert new.weight[9].tolist() == [0.0] * 4 != new.weight[8].tolist()


def test_old_rows_of_a_file(tmp_path: Path) -> None:
    """They are copied, also into a matrix of another kind; its layer has a name of its own."""
    old = torch.randn(30, 8, generator=keyed())
    path = tmp_path / "w.safetensors"
    save_file({"wte.weight": old}, path)
    model = nn.Sequential(nn.Embedding(40, 8))
    source = {"from": {"tensors": str(path)}, "layer": "wte", "tau": 0.5}
    plan = mimetic.initialize(model, rule(**source))
    table = model[0].weight.detach()
    assert torch.equal(table[:30], old)
    assert plan.entries[0].arguments["digest"]
    spread = (table[30:] - old.mean(0)).norm() / math.sqrt(10 * float(old.var(0).sum()))
    assert 0.3 < float(spread) < 0.7


@pytest.mark.parametrize(
    ("init", "code"),
    [
        ({}, "MIM-I104"),
        ({"old": 3, "layer": "x"}, "MIM-I105"),
        ({"old": 50}, "MIM-I117"),
        ({"from": {"tensors": "w.safetensors"}}, "MIM-I116"),
        ({"from": {"tensors": "w.safetensors"}, "layer": "wte"}, "MIM-I117"),
        ({"from": {"tensors": "none.safetensors"}}, "MIM-M022"),
    ],
)
def test_wrong_rules_are_errors(
    init: dict[str, object], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a tensor is touched."""
    monkeypatch.chdir(tmp_path)
    save_file({"wte.weight": torch.randn(30, 7)}, "w.safetensors")
    with pytest.raises(mimetic.RecipeError) as caught:
        mimetic.initialize(nn.Sequential(nn.Embedding(40, 8)), rule(**init))
    assert [issue.code for issue in caught.value.issues] == [code]


def test_rows_that_are_not_finite_are_an_error() -> None:
    """The table is named."""
    table = nn.Embedding(10, 4)
    with torch.no_grad():
        table.weight[3, 1] = torch.inf
    with pytest.raises(UserError) as caught:
        mimetic.initialize(nn.Sequential(table), rule(old=6))
    assert caught.value.code == "MIM-I119"
