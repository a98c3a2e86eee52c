"""The ansatz: the dense matrices' numbers without forming them, at which layers, and nothing moved."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mimetic.covariance import ansatz
from mimetic.covariance.ansatz import MEASURES, AnsatzOptions, ansatz_sites, measure_ansatz, metrics
from mimetic.covariance.gradients import gradient_grams
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.graph.names import canonical_parameters
from mimetic.graph.sites import find_sites


def network(seed: int, *, channels: int = 4, groups: int = 1, outputs: int = 3) -> nn.Sequential:
    """Return a small float64 network with a norm whose statistics are settled, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, groups=groups),
            nn.Tanh(),
            nn.Conv2d(channels, 3, 1),
            nn.Flatten(),
            nn.Linear(3 * 9, outputs),
        ).double()
        model[1].running_mean.normal_()
    return model.train()


def images(seed: int, count: int = 3) -> torch.Tensor:
    """Return images that fit it."""
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def subject(model: nn.Module, images_NCHW: torch.Tensor, **more: Any) -> TrainedNetwork:
    """Return the network as a measurement sees it."""
    graph = find_sites(model, images_NCHW[:1])
    return TrainedNetwork("a net", graph, model, images_NCHW, **more)


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    """Return the correlation over all entries, as the official helper computes it."""
    left, right = left - left.mean(), right - right.mean()
    return float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))


def dense(weight_OD: np.ndarray, gram_GOO: np.ndarray) -> np.ndarray:
    """Return WᵀSW, group by group."""
    parts = np.split(weight_OD, len(gram_GOO))
    return sum(part.T @ gram @ part for part, gram in zip(parts, gram_GOO, strict=True))


def effective_rank(matrix: np.ndarray) -> float:
    """Return Σ k·λ_k / Σ λ_k."""
    values = np.linalg.eigvalsh(matrix)[::-1].clip(0.0)
    return float((np.arange(1, len(values) + 1) * values).sum() / values.sum())


@settings(max_examples=12)
@given(seed=st.integers(0, 1000), channels=st.sampled_from([2, 4, 20]), grouped=st.booleans())
def test_the_numbers_are_those_of_the_dense_matrices(seed: int, channels: int, grouped: bool) -> None:
    """Every measure, to 1e-10, with more filters than coordinates and fewer, with groups and without."""
    groups = 2 if grouped else 1
    model, before = (network(seed + i, channels=channels, groups=groups) for i in range(2))
    asked = subject(model, images(seed), initial=before)
    found = measure_ansatz(asked, Task(ansatz_sites(asked.graph)))
    assert [layer.site.layer for layer in found] == ["0", "3", "5"]
    grams = gradient_grams(model, ["0", "3", "5"], [images(seed)])
    for layer in found:
        name = layer.site.layer
        weight, start = (net[int(name)].weight.detach().flatten(1).numpy() for net in (model, before))
        gram = grams[name].gram_GOO.numpy()
        nfm, agop = weight.T @ weight, dense(weight, gram)
        values, vectors = np.linalg.eigh(agop)
        half = (vectors * values.clip(0.0) ** 0.5) @ vectors.T
        change = (weight - start).T @ (weight - start), dense(weight - start, gram)
        expected = {
            "rho": pearson(nfm, agop),
            "alignment": (nfm * agop).sum() / np.linalg.norm(nfm) / np.linalg.norm(agop),
            "rank_nfm": effective_rank(nfm),
            "rank_agop": effective_rank(agop),
            "rho_init": pearson(start.T @ start, nfm),
            "rho_change": pearson(*change),
            "alignment_change": (change[0] * change[1]).sum() / math.prod(map(np.linalg.norm, change)),
        }
        numbers = {measure: getattr(layer.agreement, measure) for measure in expected}
        assert expected == pytest.approx(numbers, abs=1e-10, rel=1e-10)
        assert pearson(nfm, half) == pytest.approx(layer.agreement.rho_half, abs=1e-7)
        assert set(expected) | {"rho_half"} == set(MEASURES)


def test_layers_that_could_only_say_yes_are_left_out() -> None:
    """The linear head, whose gradients are unit vectors; filters of one number; what is no filter."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.Linear(8, 2),
    )
    graph = find_sites(model, torch.zeros(1, 1, 5, 5))
    assert [site.layer for site in ansatz_sites(graph)] == ["2", "4"]
    assert [site.layer for site in ansatz_sites(graph, lambda site: site.kind == "conv")] == ["2"]
    headless = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
    assert [s.layer for s in ansatz_sites(find_sites(headless, torch.zeros(1, 1, 5, 5)))] == ["0"]
    head = gradient_grams(model.eval(), ["5"], [torch.randn(4, 1, 5, 5)])["5"].gram_GOO[0]
    torch.testing.assert_close(head, 4.0 * torch.eye(2, dtype=torch.float64))


def test_the_network_is_left_as_it_was() -> None:
    """Weights, statistics, modes, gradients, the global stream."""
    model = network(0)
    model[3].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    stream = torch.random.get_rng_state()
    asked = subject(model, images(0))
    measure_ansatz(asked, Task(ansatz_sites(asked.graph)), AnsatzOptions(probes=2))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(stream, torch.random.get_rng_state())
    assert torch.equal(torch.ones_like(model[0].weight), model[0].weight.grad)
    assert all(parameter.grad is None for parameter in list(model.parameters())[1:])


def test_before_any_change_there_is_no_change_to_speak_of() -> None:
    """Same weights: ρ(NFM₀, NFM) = 1 and no centered variant; unknown ones: neither."""
    model = network(1)
    began = {name: value.clone() for name, value in canonical_parameters(model).items()}
    asked = subject(model, images(1), initial=began)
    (first, *_) = measure_ansatz(asked, Task(ansatz_sites(asked.graph)))
    assert first.agreement.rho_init == pytest.approx(1.0)
    assert (first.agreement.rho_change, first.agreement.alignment_change) == (None, None)
    asked = subject(model, images(1))
    (first, *_) = measure_ansatz(asked, Task(ansatz_sites(asked.graph)))
    assert first.agreement.rho_init is None


def test_a_layer_without_gradients_has_no_correlation() -> None:
    """A dead layer: zeros, not NaN."""
    model = network(2)
    nn.init.zeros_(model[5].weight)
    asked = subject(model, images(2))
    first, second, third = (
        layer.agreement for layer in measure_ansatz(asked, Task(ansatz_sites(asked.graph)))
    )
    assert (first.rho, second.rho_half, first.rank_agop) == (0.0, 0.0, 0.0)
    assert (third.rho, third.rank_nfm) == (0.0, 0.0)
    assert first.rank_nfm > 1.0


def test_many_outputs_are_probed_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 100 outputs go back one by one; of more, four random combinations, or all by name."""
    taken: list[int | None] = []
    real = gradient_grams
    monkeypatch.setattr(ansatz, "gradient_grams", lambda *a, **k: taken.append(a[3].probes) or real(*a, **k))
    for outputs, probes in ((100, None), (101, None), (5, 2), (101, "exact")):
        asked = subject(network(3, outputs=outputs), images(3))
        measure_ansatz(asked, Task(ansatz_sites(asked.graph)[:1]), AnsatzOptions(probes=probes))
    assert taken == [None, 4, 2, None]


def test_metrics_are_flat_and_stable() -> None:
    """`ansatz/<layer>/<measure>` and the mean correlation; what was not measured has no name."""
    asked = subject(network(4), images(4))
    layers = measure_ansatz(asked, Task(ansatz_sites(asked.graph)))
    found = metrics(layers)
    always = ["rho", "rho_half", "alignment", "rank_nfm", "rank_agop"]
    assert list(found) == [
        "ansatz/rho",
        *(f"ansatz/{layer}/{m}" for layer in ("0", "3", "5") for m in always),
    ]
    assert found["ansatz/rho"] == pytest.approx(sum(layer.agreement.rho for layer in layers) / 3)
    assert metrics([]) == {}
