"""Measuring a network: each statistic is the plain formula at every layer, and mistakes name the layer."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from mimetic.config.registry import Component
from mimetic.covariance.config import Agop, Filters, Identity, Nfm, Patches
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.measure import measure
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.names import canonical_parameters
from mimetic.graph.sites import find_sites

STAGE = {"from": {"stage": "small"}}


class Net(nn.Module):
    """A stem, a grouped and a depthwise convolution, attention and a head: one of each difficulty."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        tokens = self.depthwise(self.grouped(self.stem(x)).relu()).relu().flatten(2).mT
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))


@pytest.fixture
def net() -> Net:
    """Return a network in float64, so that formulas can be compared exactly."""
    torch.manual_seed(0)
    return Net().double()


@pytest.fixture
def images() -> torch.Tensor:
    """Return ten images."""
    return torch.randn(10, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def measured(spec: Component, model: nn.Module, **options: Any) -> Harvest:
    """Return the harvest of a network under the name `stage small`."""
    example = torch.zeros(2, 3, 8, 8, dtype=next(model.parameters()).dtype)
    images, initial = options.pop("images_NCHW", None), options.pop("initial", None)
    network = TrainedNetwork("stage small", find_sites(model, example), model, images, initial)
    return measure(spec, network, **options)


def dense(harvest: Harvest, layer: str) -> torch.Tensor:
    """Return the covariance matrix of a layer."""
    found = harvest.layer(layer)
    assert found is not None
    assert found.covariance is not None
    return found.covariance.dense()


def test_filters_are_the_second_moment_over_pixels(net: Net) -> None:
    """All slices of a layer count alike, its groups too; centered ones lose their mean and a degree."""
    plain = measured(Filters.model_validate(STAGE), net)
    centered = measured(Filters.model_validate({**STAGE, "centered": True}), net)
    assert [h.layer for h in plain.layers] == ["stem", "grouped", "depthwise"]
    for name in ("stem", "grouped", "depthwise"):
        slices = net.get_submodule(name).weight.detach().reshape(-1, 9)
        torch.testing.assert_close(dense(plain, name), slices.T @ slices / len(slices))
        torch.testing.assert_close(dense(centered, name), torch.cov(slices.T))
    assert plain.layers[0].covariance.provenance.source == "filters of stem of stage small"
    assert centered.layers[0].covariance.provenance.notes == ("mean filter taken out",)


def test_nfm_is_the_sum_over_whole_filters(net: Net) -> None:
    """WᵀW over each layer's own patch, linear layers included; the mean divides by the filters."""
    total = measured(Nfm.model_validate(STAGE), net)
    mean = measured(Nfm.model_validate({**STAGE, "normalize": "mean"}), net)
    assert {h.layer for h in total.layers} >= {"stem", "grouped", "depthwise", "head", "attention.out_proj"}
    for name in ("stem", "grouped", "head"):
        rows = net.get_submodule(name).weight.detach().flatten(1)
        torch.testing.assert_close(dense(total, name), rows.T @ rows)
        torch.testing.assert_close(dense(mean, name), rows.T @ rows / len(rows))


@pytest.mark.parametrize("section", [Filters, Nfm])
def test_change_is_measured_since_the_initial_weights(net: Net, section: type[Component]) -> None:
    """A network or its parameters by name may say where it began; the notes say what it is of."""
    before = {name: torch.randn_like(p) for name, p in canonical_parameters(net).items()}
    initial = Net().double()
    initial.load_state_dict({**initial.state_dict(), **before})
    spec = section.model_validate({**STAGE, "of": "change"})
    change = Net().double()
    change.load_state_dict({name: p.detach() - before[name] for name, p in canonical_parameters(net).items()})
    plain = measured(section.model_validate(STAGE), change)
    by_name, by_model = measured(spec, net, initial=before), measured(spec, net, initial=initial)
    assert by_name.digest == by_model.digest
    torch.testing.assert_close(dense(by_name, "stem"), dense(plain, "stem"))
    assert by_name.layers[0].covariance.provenance.notes == ("of the change since initialization",)


def plain_agop(net: Net, name: str, images: torch.Tensor) -> torch.Tensor:
    """Return Σ Wᵀδ(Wᵀδ)ᵀ by the definition, image by image and output by output."""
    layer = net.get_submodule(name)
    weight, total = layer.weight.detach().flatten(1), 0.0
    for image in images:
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        logits = net(image[None])[0]
        hook.remove()
        for output in range(len(logits)):
            delta = torch.autograd.grad(logits[output], seen[0], retain_graph=True)[0]
            delta = delta.reshape(-1, 1) if delta.ndim == 2 else delta[0].flatten(1)
            for group in range(getattr(layer, "groups", 1)):
                part = slice(group * (len(weight) // getattr(layer, "groups", 1)), None)
                part = slice(part.start, part.start + len(weight) // getattr(layer, "groups", 1))
                total = total + (weight[part].T @ delta[part]) @ (weight[part].T @ delta[part]).T
    return total


def test_agop_is_the_sum_of_patch_gradients(net: Net, images: torch.Tensor) -> None:
    """Over images, positions and outputs; groups add up; the layer that only lends its weight is left out."""
    found = measured(Agop.model_validate({**STAGE, "images": 3}), net, images_NCHW=images)
    assert [h.layer for h in found.layers] == ["stem", "grouped", "depthwise", "head"]
    for name in ("stem", "grouped", "depthwise", "head"):
        torch.testing.assert_close(dense(found, name), plain_agop(net, name, images[:3]))
        assert found.layer(name).covariance.provenance.samples == 3


def test_agop_options(net: Net, images: torch.Tensor) -> None:
    """Outputs, powers and probes do what they say; probes are keyed by the seed."""
    full = measured(Agop.model_validate({**STAGE, "images": 3}), net, images_NCHW=images)
    root = measured(Agop.model_validate({**STAGE, "images": 3, "power": 0.5}), net, images_NCHW=images)
    one = measured(Agop.model_validate({**STAGE, "images": 3, "outputs": 1}), net, images_NCHW=images)
    torch.testing.assert_close(dense(root, "stem") @ dense(root, "stem"), dense(full, "stem"))
    assert one.layer("stem").covariance.trace < full.layer("stem").covariance.trace
    probed = [
        measured(Agop.model_validate({**STAGE, "probes": 2}), net, images_NCHW=images, seed=seed).digest
        for seed in (0, 0, 1)
    ]
    assert probed[0] == probed[1] != probed[2]


def test_fewer_images_than_asked_for_are_all_used(net: Net, images: torch.Tensor) -> None:
    """The provenance says how many there were, and progress counts them."""
    told: list[tuple[int, int]] = []
    found = measured(
        Agop.model_validate(STAGE), net, images_NCHW=images, progress=lambda *done: told.append(done)
    )
    assert found.layers[0].covariance.provenance.samples == 10
    assert told[-1] == (10, 10)


def test_shrinkage_and_rank(net: Net) -> None:
    """The trace is kept by shrinkage and bounds what a rank keeps; auto estimates the share."""
    plain = measured(Nfm.model_validate(STAGE), net).layer("stem").covariance
    half = measured(Nfm.model_validate({**STAGE, "shrink": 0.5, "rank": 20}), net).layer("stem").covariance
    expected = 0.5 * plain.dense() + 0.5 * plain.trace / 27 * torch.eye(27, dtype=torch.float64)
    values = torch.linalg.eigvalsh(expected)[-20:]
    torch.testing.assert_close(half.eigenvalues()[:20].flip(0), values)
    assert half.provenance.notes == ("shrunk 0.5 toward its mean variance", "rank 20")
    auto = measured(Filters.model_validate({**STAGE, "shrink": "auto"}), net).layer("stem").covariance
    share = float(auto.provenance.notes[0].split()[1])
    assert 0.5 < share <= 1.0, "untrained filters are nothing but noise"


def test_shrinkage_is_refused_where_it_cannot_be(net: Net, images: torch.Tensor) -> None:
    """Gradients are no samples to estimate it from, and full rank over many coordinates is not formed."""
    with pytest.raises(UserError, match=r"`agop of stem of stage small`: `shrink: auto` is estimated from"):
        measured(Agop.model_validate({**STAGE, "shrink": "auto"}), net, images_NCHW=images)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(2049, 2, bias=False))
    with pytest.raises(UserError) as raised:
        measure(
            Nfm.model_validate({**STAGE, "shrink": 0.1}),
            TrainedNetwork("stage small", find_sites(wide, torch.zeros(1, 2049)), wide),
        )
    assert str(raised.value) == (
        "covariance `nfm of 1 of stage small`: `shrink` has full rank over its 2049 coordinates (limit "
        "2048); leave `shrink` out, narrow the layers with `kind`, or use `filters`, whose covariance is "
        "spatial"
    )


def test_patches_are_those_of_the_first_layer(net: Net, images: torch.Tensor) -> None:
    """With its stride and its padding; whitened, the layer's outputs come out white."""
    found = measured(Patches(images=7), net, images_NCHW=images)
    rows = nn.functional.unfold(images[:7], 3, stride=2, padding=1).mT.reshape(-1, 27)
    second = rows.T @ rows / len(rows)
    assert [h.layer for h in found.layers] == ["stem"]
    torch.testing.assert_close(dense(found, "stem"), second)
    white = measured(Patches(images=7, whiten=True, epsilon=0.5), net, images_NCHW=images)
    identity = torch.eye(27, dtype=torch.float64)
    torch.testing.assert_close(dense(white, "stem") @ (second + 0.5 * identity), identity)


@pytest.mark.parametrize(("padding", "expected"), [("valid", 0), ("same", 1), (1, 1), ((1, 1), 1)])
def test_padding_may_be_a_word(images: torch.Tensor, padding: Any, expected: int) -> None:
    """`same` is (k − 1)/2 where that is whole."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=padding), nn.Flatten()).double()
    rows = nn.functional.unfold(images, 3, padding=expected).mT.reshape(-1, 27)
    found = measured(Patches(), model, images_NCHW=images)
    torch.testing.assert_close(dense(found, "0"), rows.T @ rows / len(rows))


@pytest.mark.parametrize("options", [{"padding": (0, 1)}, {"stride": (1, 2)}])
def test_uneven_patches_are_refused(images: torch.Tensor, options: dict[str, Any]) -> None:
    """The layer, its filters and the other statistics are named."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, **options), nn.Flatten()).double()
    with pytest.raises(UserError, match=r"^0 \(conv 4×3×3×3\): patches need one \w+ for all sides"):
        measured(Patches(), model, images_NCHW=images)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("section", [Filters, Nfm, Agop])
def test_weights_that_are_not_finite_are_refused(
    net: Net, images: torch.Tensor, section: type[Component], bad: float
) -> None:
    """TrainedRef, layer, geometry and repair are in the message."""
    with torch.no_grad():
        net.grouped.weight[0, 0, 0, 0] = bad
    with pytest.raises(UserError) as raised:
        measured(section.model_validate(STAGE), net, images_NCHW=images)
    assert raised.value.code == "MIM-V011"
    assert "stage small: the weight of `grouped` (conv 8×4×3×3)" in str(raised.value)


@pytest.mark.parametrize("images_NCHW", [None, torch.zeros(0, 3, 8, 8)])
def test_missing_images_are_said(net: Net, images_NCHW: torch.Tensor | None) -> None:
    """Gradients and patches need data."""
    with pytest.raises(UserError) as raised:
        measured(Agop.model_validate(STAGE), net, images_NCHW=images_NCHW)
    assert raised.value.code == "MIM-V014"
    assert "at `stem` (conv 8×3×3×3)" in str(raised.value)
    with pytest.raises(UserError, match="`patches` needs images"):
        measured(Patches(), net, images_NCHW=images_NCHW)


def test_images_must_be_as_the_network_saw_them(net: Net) -> None:
    """Bytes are not normalized, and grey images do not fit an RGB network."""
    with pytest.raises(UserError, match=r"the images are torch\.uint8; give them in floating point"):
        measured(Agop.model_validate(STAGE), net, images_NCHW=torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    grey = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    with pytest.raises(
        UserError, match=r"does not take images of 1×8×8: .*; give the data it was trained on"
    ):
        measured(Agop.model_validate(STAGE), net, images_NCHW=grey)
    with pytest.raises(UserError, match=r"`stem` \(conv 8×3×3×3\) takes 3 channels and the images have 1"):
        measured(Patches(), net, images_NCHW=grey)


def test_initial_weights_must_be_known_and_fit(net: Net) -> None:
    """`of: change` says what it lacks."""
    spec = Filters.model_validate({**STAGE, "of": "change"})
    with pytest.raises(UserError, match=r"`of: change` needs the weights before training.*`of: weights`"):
        measured(spec, net)
    with pytest.raises(
        UserError, match=r"the initial weight of `stem` \(conv 8×3×3×3\) is absent; give the same network"
    ):
        measured(spec, net, initial={})
    with pytest.raises(UserError, match=r"the initial weight of `stem` \(conv 8×3×3×3\) has shape \(2,\)"):
        measured(spec, net, initial={"stem.weight": torch.zeros(2)})


def test_networks_without_values_are_refused() -> None:
    """A model on the meta device can be planned from, not measured."""
    with torch.device("meta"):
        model = Net()
    with pytest.raises(UserError, match="`stem` is on the meta device"):
        measured(Filters.model_validate(STAGE), model)


def test_the_network_is_left_as_it_was(net: Net, images: torch.Tensor) -> None:
    """No weight, flag, hook or gradient is changed."""
    net.train()
    before = {name: p.clone() for name, p in net.state_dict().items()}
    measured(Agop.model_validate(STAGE), net, images_NCHW=images)
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_wrapped_networks_give_the_same(net: Net, images: torch.Tensor) -> None:
    """Names are canonical, and gradients are found behind the wrapper."""
    wrapped = nn.DataParallel(net)
    spec = Agop.model_validate({**STAGE, "images": 2})
    plain, through = measured(spec, net, images_NCHW=images), measured(spec, wrapped, images_NCHW=images)
    assert plain.digest == through.digest


def test_formulas_are_not_measured(net: Net) -> None:
    """Only statistics of networks are; others can join."""
    with pytest.raises(UserError, match=r"`identity` names no"):
        measured(Identity(), net)
