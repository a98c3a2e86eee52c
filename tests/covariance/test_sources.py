"""From `covariance:` sections to covariances, and the messages where there is none."""

import pytest
import torch

import mimetic.recipe  # noqa: F401  registers the types
from mimetic.covariance import closed_form, source
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.recipe.base import Spec
from mimetic.recipe.covariance import ClosedForm, Identity, Width
from mimetic.recipe.registry import registered


def site(kind: str, geometry: Geometry | None, *, depth: float = 0.0) -> Site:
    """Return a layer `blocks.1` of a kind."""
    shape = (
        () if geometry is None else (geometry.out_channels, geometry.patch_channels, *geometry.kernel_size)
    )
    parameter = Parameter("blocks.1.weight", "weight", shape, "float32")
    return Site("blocks.1", kind, ("Layer",), geometry, (parameter,), depth)


DEPTHWISE = Geometry(8, 8, (7, 7), (1, 1), 8)


def test_every_registered_covariance_has_a_source() -> None:
    """A covariance type without a function that computes it fails here."""
    nothing = source.dispatch(Spec)
    missing = [name for name, spec in registered("covariance").items() if source.dispatch(spec) is nothing]
    assert missing == []


def test_closed_form_takes_its_width_from_the_depth() -> None:
    """Width follows start + linear·d + ½·quadratic·d² at the layer's depth."""
    spec = ClosedForm(width=Width(start=0.16, linear=0.32, quadratic=2.88), psd="clip", padding="zero")
    cov = source(spec, site("depthwise_conv", DEPTHWISE, depth=4 / 7))
    width = 0.16 + 0.32 * 4 / 7 + 0.5 * 2.88 * (4 / 7) ** 2
    assert width == pytest.approx(0.813061, abs=1e-6)
    assert cov is closed_form((7, 7), width, padding="zero", convention="variance", psd="clip")
    assert (cov.patch.channels, cov.patch.kernel_size) == (1, (7, 7))


def test_identity_is_small_whatever_the_layer() -> None:
    """Independent weights need one entry for a linear layer of any size, and the variance asked for."""
    linear = source(Identity(variance=4.0), site("linear", Geometry(4096, 4096)))
    conv = source(Identity(variance=4.0), site("conv", Geometry(512, 512, (3, 3), (1, 1))))
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
        source(ClosedForm(), site(kind, geometry))


def test_negative_widths_are_refused() -> None:
    """A schedule that falls below zero is an error at the depth where it does."""
    spec = ClosedForm(width=Width(start=0.1, linear=-0.5, quadratic=0.0))
    with pytest.raises(UserError, match=r"blocks\.1.*-0\.15 at depth 0\.5"):
        source(spec, site("depthwise_conv", DEPTHWISE, depth=0.5))


def test_identity_needs_filters() -> None:
    """A layer without geometry has no filters, not even independent ones."""
    with pytest.raises(UserError, match=r"blocks\.1.*norm layer has no filters"):
        source(Identity(), site("norm", None))


def test_unknown_sources_are_refused() -> None:
    """A registered type that nothing computes says how to join."""

    class Strange(Spec):
        type: str = "strange"

    with pytest.raises(UserError, match=r"strange.*source\.register"):
        source(Strange(), site("depthwise_conv", DEPTHWISE))
