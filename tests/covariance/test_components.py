"""From `covariance:` sections to covariances, and the messages where there is none."""

from pathlib import Path

import pytest
import torch

from mimetic.config.registry import implementation, registered
from mimetic.covariance import components
from mimetic.covariance.carry import PendingCovariance
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.components import covariance_of
from mimetic.covariance.config import (
    ClosedForm,
    CovarianceFile,
    Filters,
    Identity,
    Mixture,
    Nfm,
    Patches,
    Width,
)
from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.harvest import Harvest, Harvested, harvest_key
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Parameter, Site


def site(kind: str, geometry: Geometry | None, *, depth: float = 0.0) -> Site:
    """Return a layer `blocks.1` of a kind."""
    shape = (
        () if geometry is None else (geometry.out_channels, geometry.patch_channels, *geometry.kernel_size)
    )
    parameter = Parameter("blocks.1.weight", "weight", shape, "float32")
    return Site("blocks.1", kind, ("Layer",), geometry, (parameter,), depth)


DEPTHWISE = Geometry(8, 8, (7, 7), (1, 1), 8)
STEM = Geometry(3, 8, (3, 3), (1, 1))


def test_every_registered_covariance_has_a_source() -> None:
    """Every function that a covariance section names can be imported."""
    for spec in registered("covariance").values():
        for name in spec.functions:
            assert callable(implementation(spec, name))


def test_closed_form_takes_its_width_from_the_depth() -> None:
    """Width follows start + linear·d + ½·quadratic·d² at the layer's depth."""
    spec = ClosedForm(width=Width(start=0.16, linear=0.32, quadratic=2.88), psd="clip", padding="zero")
    cov = covariance_of(spec, site("depthwise_conv", DEPTHWISE, depth=4 / 7))
    width = 0.16 + 0.32 * 4 / 7 + 0.5 * 2.88 * (4 / 7) ** 2
    assert width == pytest.approx(0.813061, abs=1e-6)
    assert cov is closed_form((7, 7), width, padding="zero", convention="variance", psd="clip")
    assert (cov.patch.channels, cov.patch.kernel_size) == (1, (7, 7))


def test_identity_is_small_whatever_the_layer() -> None:
    """Independent weights need one entry for a linear layer of any size, and the variance asked for."""
    linear = covariance_of(Identity(variance=4.0), site("linear", Geometry(4096, 4096)))
    conv = covariance_of(Identity(variance=4.0), site("conv", Geometry(512, 512, (3, 3), (1, 1))))
    assert torch.equal(torch.tensor([[2.0]], dtype=torch.float64), linear.factor_RD)
    assert torch.equal(4.0 * torch.eye(9, dtype=torch.float64), conv.dense())


@pytest.mark.parametrize(
    ("kind", "geometry", "what"),
    [
        ("linear", Geometry(8, 8), "linear layer"),
        ("pointwise_conv", Geometry(8, 8, (1, 1), (1, 1)), "single pixel"),
        ("norm", None, "norm layer"),
        ("embedding", None, "embedding layer"),
        ("conv_transpose", Geometry(8, 8, (3, 3), (2, 2), transposed=True), "transposed"),
    ],
)
def test_layers_without_spatial_filters_are_refused(kind: str, geometry: Geometry | None, what: str) -> None:
    """The message names the layer, what it is, and what to match instead."""
    with pytest.raises(UserError, match=f"blocks.1.*{what}.*depthwise_conv"):
        covariance_of(ClosedForm(), site(kind, geometry))


def test_negative_widths_are_refused() -> None:
    """A schedule that falls below zero is an error at the depth where it does."""
    spec = ClosedForm(width=Width(start=0.1, linear=-0.5, quadratic=0.0))
    with pytest.raises(UserError, match=r"blocks\.1.*-0\.15 at depth 0\.5"):
        covariance_of(spec, site("depthwise_conv", DEPTHWISE, depth=0.5))


def test_identity_needs_filters() -> None:
    """A layer without geometry has no filters, not even independent ones."""
    with pytest.raises(UserError, match=r"blocks\.1.*norm layer has no filters"):
        covariance_of(Identity(), site("norm", None))


def test_trained_networks_must_be_at_hand() -> None:
    """Without a harvest the message says who makes one, and what to do in Python."""
    spec = Filters.model_validate({"from": {"stage": "small"}})
    with pytest.raises(UserError) as raised:
        covariance_of(spec, site("depthwise_conv", DEPTHWISE))
    assert raised.value.code == "MIM-V006"
    assert "needs a trained network" in str(raised.value)
    with pytest.raises(UserError, match=r"`patches` needs training images"):
        covariance_of(Patches(), site("conv", STEM))


def harvest_of(
    layer: str, geometry: Geometry, *, statistic: str = "filters", measured: bool = True
) -> Harvest:
    """Return a harvest of one layer."""
    channels = 1 if statistic == "filters" else geometry.patch_channels
    patch = PatchGeometry(channels, geometry.kernel_size)
    cov = Covariance(torch.eye(patch.size, dtype=torch.float64), patch, Provenance("given", notes=("seen",)))
    kind = "conv" if geometry.groups == 1 else "depthwise_conv"
    return Harvest(
        "here",
        statistic,
        (Harvested(layer, kind, 0.0, geometry, cov if measured else None),),
        statistic == "filters",
    )


def test_files_are_read_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer of a plan asks for the file; its name stands in the notes."""
    path = tmp_path / "cov.safetensors"
    save_harvest(path, harvest_of("blocks.0", DEPTHWISE))
    reads: list[Path] = []

    def counting(path: Path) -> Harvest:
        reads.append(path)
        return load_harvest(path)

    monkeypatch.setattr(components, "load_harvest", counting)
    spec = CovarianceFile(path=str(path))
    for depth in (0.0, 0.5, 1.0):
        found = covariance_of(spec, site("depthwise_conv", DEPTHWISE, depth=depth))
        assert found.provenance.notes == ("seen", f"depth {depth:.2f} at blocks.0 of cov.safetensors")
    assert len(reads) == 1
    save_harvest(path, harvest_of("blocks.7", DEPTHWISE))
    assert "blocks.7" in covariance_of(spec, site("depthwise_conv", DEPTHWISE)).provenance.notes[-1]
    with pytest.raises(UserError, match="no such covariance file"):
        covariance_of(
            CovarianceFile(path=str(tmp_path / "none.safetensors")), site("depthwise_conv", DEPTHWISE)
        )


def test_patches_start_the_first_layer_alone() -> None:
    """It draws from them as they are; every other layer is told who sees images."""
    spec = Patches()
    harvests = {harvest_key(spec): harvest_of("blocks.1", STEM, statistic="patches")}
    first = covariance_of(spec, site("conv", STEM), Context(harvests=harvests))
    assert torch.equal(torch.eye(27, dtype=torch.float64), first.dense())
    pending = {harvest_key(spec): harvest_of("blocks.1", STEM, statistic="patches", measured=False)}
    assert covariance_of(spec, site("conv", STEM), Context(harvests=pending)) == PendingCovariance(
        "patches of here", PatchGeometry(3, (3, 3))
    )
    other = {harvest_key(spec): harvest_of("stem", STEM, statistic="patches")}
    with pytest.raises(UserError) as raised:
        covariance_of(spec, site("conv", STEM), Context(harvests=other))
    assert raised.value.code == "MIM-V003"
    assert "blocks.1 (conv 8×3×3×3)" in str(raised.value)


def mixture(*parts: dict[str, object]) -> Mixture:
    """Return a mixture as a recipe says it."""
    return Mixture.model_validate({"components": list(parts)})


def test_mixtures_weigh_energies() -> None:
    """Σ = Σ_i s_i·Σ_i / tr Σ_i with shares that sum to 1, whatever the size of a part."""
    spec = mixture(
        {"weight": 3.0, "covariance": {"type": "closed_form", "width": 0.4}},
        {"covariance": {"type": "identity", "variance": 9.0}},
    )
    found = covariance_of(spec, site("depthwise_conv", DEPTHWISE))
    assert isinstance(found, Covariance)
    first = closed_form((7, 7), 0.4)
    expected = 0.75 * first.dense() / first.trace + 0.25 * torch.eye(49, dtype=torch.float64) / 49.0
    torch.testing.assert_close(found.dense(), expected)
    assert found.provenance.notes[-1] == "mixed 0.75·closed_form + 0.25·identity"


def test_mixtures_with_an_untrained_network_are_pending() -> None:
    """A plan shows what will be mixed, and how its parts are carried over."""
    part = {"type": "filters", "from": {"stage": "small"}}
    blank = Harvested("a", "depthwise_conv", 0.0, Geometry(4, 4, (5, 5), (1, 1), 4))
    harvests = {
        harvest_key(Filters.model_validate(part)): Harvest("stage small", "filters", (blank,), spatial=True)
    }
    spec = mixture({"covariance": part}, {"covariance": {"type": "closed_form"}})
    found = covariance_of(spec, site("depthwise_conv", DEPTHWISE), Context(harvests=harvests))
    assert isinstance(found, PendingCovariance)
    assert found.source == "a mixture, 0.5 filters of stage small + 0.5 closed_form"
    assert found.notes == ("depth 0.00 at a of stage small", "resized 5×5→7×7, trace kept")


def test_parts_of_other_patches_do_not_mix() -> None:
    """The parts and their patches are shown, and the repair."""
    part = {"type": "nfm", "from": {"stage": "small"}}
    factor = torch.ones(1, 27, dtype=torch.float64)
    full = Harvested("a", "conv", 0.0, STEM, Covariance(factor, PatchGeometry(3, (3, 3))))
    harvests = {harvest_key(Nfm.model_validate(part)): Harvest("stage small", "nfm", (full,))}
    spec = mixture({"covariance": part}, {"covariance": {"type": "closed_form"}})
    with pytest.raises(UserError) as caught:
        covariance_of(spec, site("conv", STEM), Context(harvests=harvests))
    assert caught.value.code == "MIM-V004"
    assert "`nfm` 3×3×3, `closed_form` 1×3×3" in str(caught.value)
