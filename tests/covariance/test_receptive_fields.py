"""Covariances of receptive fields against the published code's values."""

import math

import pytest
import torch

from mimetic.covariance.components import covariance_of
from mimetic.covariance.config import V1, ScaleSpace
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.receptive_fields import master_filters, v1_matrix
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Parameter, Site

# Variant B at 7×7: entries [3,3] [3,2] [2,3] [3,4] [4,3] [2,2] of each filter.
ENTRIES = ((3, 3), (3, 2), (2, 3), (3, 4), (4, 3), (2, 2))
VARIANT_B = (
    (-0.668042, -0.135635, 0.668042, -0.135635, -0.123077, 0.135635),
    (0.667793, 0.124398, 0.135584, -0.667793, 0.135584, 0.025257),
    (0.650845, 0.150703, 0.164302, 0.150703, -0.650845, 0.038044),
    (-0.66437, 0.66437, -0.0699, -0.216151, -0.0699, 0.0699),
    (0.0, 0.512231, 0.0, -0.512231, 0.0, 0.208583),
    (0.0, 0.0, 0.576015, 0.0, -0.576015, 0.216034),
    (0.993948, 0.040611, 0.040611, 0.040611, 0.040611, -0.03099),
    (0.938647, 0.171137, 0.166814, 0.171137, 0.166814, 0.030414),
)
V1_K5 = {  # s = 1.5, f = 1
    (0, 0): 0.1040368128868496,
    (12, 12): 3.6408059491026545,
    (12, 13): 1.7682190428507494,
    (12, 18): 0.8587740992503244,
}


def test_master_filters_are_the_published_ones() -> None:
    """All eight filters of variant B, to the digits that were published."""
    found = [[filter_[at].item() for at in ENTRIES] for filter_ in master_filters((7, 7), "B")]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(VARIANT_B), atol=6e-7, rtol=0.0)
    sums = master_filters((7, 7), "B").sum((1, 2))[6:]
    torch.testing.assert_close(
        sums, torch.tensor([0.899819, 1.826094], dtype=torch.float64), atol=1e-6, rtol=0.0
    )


@pytest.mark.parametrize("variant", ["A", "B", "C2", "D2"])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 7), (9, 9)])
def test_master_filters_have_norm_one(variant: str, kernel: tuple[int, int]) -> None:
    """Any odd kernel has eight filters of norm 1, so that the covariance has trace 1."""
    norms = master_filters(kernel, variant).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(8, dtype=torch.float64))


def test_v1_is_the_published_one() -> None:
    """The matrix at 3×3 and 5×5, its scale included."""
    small = v1_matrix((3, 3), size=2.0, smoothness=0.1)
    corners = [0.8345083279, 1.0715259957, 0.8345083279, 1.0715259957, 1.3758627054]
    torch.testing.assert_close(
        small.diagonal()[:5], torch.tensor(corners, dtype=torch.float64), atol=1e-9, rtol=0.0
    )
    assert math.isclose(small[0, 1].item(), 1.8238e-22, rel_tol=1e-4)
    large = v1_matrix((5, 5), size=1.5, smoothness=1.0)
    for at, value in V1_K5.items():
        assert math.isclose(large[at].item(), value, rel_tol=1e-9)
    assert math.isclose(torch.linalg.eigvalsh(large)[-1].item(), 9.200538527268325, rel_tol=1e-9)


def site(*kernel: int) -> Site:
    """Return a depthwise layer with such a kernel."""
    geometry = Geometry(8, 8, kernel, (1,) * len(kernel), 8)
    parameter = Parameter("a.weight", "weight", (8, 1, *kernel), "float32")
    return Site("a", "depthwise_conv", ("Conv2d",), geometry, (parameter,), 0.5)


def test_sections_give_the_covariances() -> None:
    """The factor of each section is a root of its matrix."""
    v1 = covariance_of(V1(size=1.5), site(5, 5))
    assert isinstance(v1, Covariance)
    torch.testing.assert_close(v1.factor_RD.T @ v1.factor_RD, v1_matrix((5, 5), size=1.5, smoothness=1.0))
    found = covariance_of(ScaleSpace(variant="A"), site(7, 7))
    assert isinstance(found, Covariance)
    assert found.trace == pytest.approx(1.0)
    torch.testing.assert_close(found.factor_RD * 8.0**0.5, master_filters((7, 7), "A").flatten(1))


@pytest.mark.parametrize("kernel", [(4, 4), (7,), (3, 3, 3), (1, 5)])
def test_other_kernels_have_no_master_filters(kernel: tuple[int, ...]) -> None:
    """Sides that are even, too small, or not two are refused."""
    with pytest.raises(UserError) as caught:
        covariance_of(ScaleSpace(), site(*kernel))
    assert caught.value.code == "MIM-V008"
