"""Filters from covariances: layouts, groups, moments, notes and refusals."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.initializers.gaussian import draw_filters, gaussian_moments

CLOSED = {"covariance": {"type": "closed_form", "width": 0.7}}
IDENTITY = {"covariance": "identity"}


def test_filters_are_draws_of_the_factor(make: SimpleNamespace) -> None:
    """The weight is ε·F of the keyed generator, reshaped row-major to (outputs, channels, rows, columns)."""
    found = make.resolve(make.rule(**CLOSED), make.conv(12, 64, 5), ("weight",))
    weight = found.sample(make.keyed(), nn.Identity())["weight"]
    noise = torch.randn(64 * 12, 25, generator=make.keyed()("weight", "filters"), dtype=torch.float64)
    expected = (noise @ closed_form((5, 5), 0.7).factor_RD).view(64, 12, 5, 5).float()
    assert torch.equal(expected, weight)


def test_channels_are_independent_and_notes_say_so(make: SimpleNamespace) -> None:
    """A spatial covariance is drawn per input channel; the plan notes it, and the repair."""
    dense = make.resolve(make.rule(**CLOSED), make.conv(12, 64, 5), ("weight",))
    depthwise = make.resolve(make.rule(**CLOSED), make.conv(16, 16, 5, 16), ("weight",))
    assert dense.notes[-1] == "a spatial covariance: 12 input channels drawn independently"
    assert len(dense.notes) == 2
    assert dense.notes[0].endswith("taken by absolute value")
    assert dense.notes[:1] == depthwise.notes
    assert make.resolve(make.rule(**IDENTITY), make.conv(), ("weight",)).notes == ()


def test_arguments_hold_the_resolved_width(make: SimpleNamespace) -> None:
    """What enters the plan's hash are the rule's arguments and the width at this layer's depth."""
    settings = {"covariance": {"type": "closed_form", "width": {"start": 0.1, "linear": 0.4}}}
    arguments = make.resolve(make.rule(**settings), make.conv(), ("weight",)).arguments
    assert arguments["covariance"]["width"] == pytest.approx(0.1 + 0.2 + 0.5 * 0.25 * 0.25)
    assert arguments["covariance"]["padding"] == "wrap"
    assert arguments["scale"] == {"type": "none", "gain": 1.0}


def test_input_first_matrices_are_turned(make: SimpleNamespace) -> None:
    """GPT-2's Conv1D gets the weights of the equivalent linear layer, transposed."""
    settings = {**IDENTITY, "scale": "kaiming"}
    plain = make.resolve(make.rule(**settings), make.linear(), ("weight",))
    turned = make.resolve(make.rule(**settings), make.conv1d_of_gpt2(), ("weight",))
    weight = turned.sample(make.keyed(), nn.Identity())["weight"]
    assert torch.equal(plain.sample(make.keyed(), nn.Identity())["weight"].T, weight)
    assert weight.is_contiguous()
    assert plain.moments == turned.moments


def test_transposed_convolutions_store_inputs_first() -> None:
    """The filter of output o is along the stored weight's first side, within its group."""
    geometry = Geometry(6, 8, (1,), (2,), groups=2, transposed=True)
    full = Covariance(torch.diag(torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)), PatchGeometry(3, (1,)))
    weight = draw_filters(full, geometry, torch.Generator().manual_seed(0))
    silent = weight.view(2, 3, 4)[:, 1]
    assert weight.shape == (6, 4, 1)
    assert torch.count_nonzero(silent) == 0
    assert torch.count_nonzero(weight) == 2 * 2 * 4


def test_large_layers_are_drawn_in_blocks(make: SimpleNamespace) -> None:
    """A linear layer of 2100 × 1000 scatters alike at its start and its end."""
    found = make.resolve(make.rule(**IDENTITY), make.linear(1000, 2100), ("weight",))
    weight = found.sample(make.keyed(), nn.Identity())["weight"]
    assert pytest.approx([1.0, 1.0], abs=0.01) == [float(weight[:500].std()), float(weight[-500:].std())]
    assert found.moments["weight"].draws == 2_100_000.0


def test_moments_count_correlated_entries_for_less(make: SimpleNamespace) -> None:
    """A depthwise 7×7 filter of the closed form at width 1 is worth about seven values of its 49."""
    cov = closed_form((7, 7), 1.0)
    moments = gaussian_moments(cov, Geometry(32, 32, (7, 7), (1, 1), 32))
    assert moments.std == pytest.approx(math.sqrt(cov.trace / 49))
    assert moments.draws == pytest.approx(32 * cov.trace**2 / float(cov.dense().square().sum()))
    assert 6 < moments.draws / 32 < 8


def test_moments_govern_how_far_measured_ones_scatter() -> None:
    """Over many seeds, mean and energy of a layer scatter as the effective number of draws says."""
    cov, geometry = closed_form((7, 7), 2.0), Geometry(8, 8, (7, 7), (1, 1), 8)
    moments = gaussian_moments(cov, geometry)
    weights = [draw_filters(cov, geometry, torch.Generator().manual_seed(seed)) for seed in range(400)]
    means = torch.stack([weight.mean() for weight in weights])
    energies = torch.stack([weight.square().mean() for weight in weights])
    error = moments.std / math.sqrt(moments.draws)
    assert float(means.std()) < 1.1 * error
    assert float(energies.std()) < 1.1 * moments.std**2 * math.sqrt(2.0 / moments.draws)


def test_only_weights_are_filters(make: SimpleNamespace) -> None:
    """A rule that also claims the bias is refused by name."""
    with pytest.raises(UserError, match=r"blocks\.1: covariance rules draw filters, and `bias`"):
        make.resolve(make.rule(**CLOSED), make.conv(), ("weight", "bias"))


def test_norm_weights_are_not_filters(make: SimpleNamespace) -> None:
    """The weight of a norm has one side only."""
    with pytest.raises(UserError, match=r"`weight` of shape \(64,\)"):
        make.resolve(make.rule(**IDENTITY), make.norm(), ("weight",))


def test_layers_without_geometry_are_refused(make: SimpleNamespace) -> None:
    """An embedding is a matrix, but not of filters."""
    embedding = make.site("embedding", None, weight=(100, 8))
    with pytest.raises(UserError, match="embedding layer has no filters"):
        make.resolve(make.rule(**IDENTITY), embedding, ("weight",))


def test_other_layouts_are_refused(make: SimpleNamespace) -> None:
    """A weight that is not what its geometry says is an error, not a wrong reshape."""
    strange = make.site("conv", Geometry(3, 8, (3, 3), (1, 1)), weight=(8, 3, 9))
    with pytest.raises(UserError, match=r"shape \(8, 3, 9\), its geometry \(8, 3, 3, 3\)"):
        make.resolve(make.rule(**IDENTITY), strange, ("weight",))


def test_scale_errors_name_the_layer(make: SimpleNamespace) -> None:
    """A width of which nothing is left cannot be scaled, and the layer is named."""
    settings = {**CLOSED, "scale": {"type": "trace"}}
    with pytest.raises(UserError, match=r"blocks\.1: .*single pixel"):
        make.resolve(make.rule(**settings), make.conv(side=1), ("weight",))
