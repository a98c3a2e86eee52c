"""The folded gradient against autograd, the official code's values, and blocks of any size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.kernels import plain_agop, plain_patches
from mimetic.kernels import agop, cntk
from mimetic.kernels.agop import patch_agop
from mimetic.kernels.cntk import kernel, kernel_rows
from mimetic.kernels.convrfm import learned
from mimetic.kernels.patches import Architecture, PatchInputs

ResolvedInit = Callable[..., Tensor]

# (padding, round): K[0,0], K[0,1], K[1,2], largest K, K_test[0,0]; prediction of test image 0; trace and norm
# of the AGOP, its entries [0,0] and [2,5].
SPOT = {
    (False, 0): (
        73.5894455, 17.8068352, 23.4853687, 92.8965077, 28.9633454, 0.3058255, 0.1708486, 0.3814284,
        167.49374, 48.91144, 6.429314, 0.853355,
    ),
    (False, 1): (
        5.3660739, 1.3091203, 1.5311303, 6.8340440, 2.2008116, 0.3230488, 0.1816749, 0.3499635,
        1.3650311, 0.6328072, 0.0365883, 0.0068681,
    ),
    (False, 2): (
        6.2472447, 1.8396536, 1.4618324, 8.1196986, 2.8487327, 0.3467539, 0.2005160, 0.2869195,
        3.9039965, 2.7024434, 0.0686076, -0.0169308,
    ),
    (True, 0): (
        67.6972833, 15.6746798, 20.9481998, 79.9217016, 25.3804408, 0.2750131, 0.1821358, 0.3894031,
        72.728284, 19.880333, 3.109057, 0.188446,
    ),
    (True, 1): (
        4.5989457, 1.0831769, 1.3186978, 5.4967400, 1.8214913, 0.2911709, 0.1940373, 0.3867980,
        0.4724088, 0.1956663, 0.0172075, 0.0002344,
    ),
    (True, 2): (
        5.5619635, 1.5375788, 1.3521573, 6.7928189, 2.4352957, 0.3043031, 0.2212811, 0.3742273,
        1.3386052, 0.8182235, 0.0518236, -0.0075276,
    ),
}  # fmt: skip


def same(images: Tensor) -> Tensor:
    """Return images that are numbers already."""
    return images


@pytest.mark.parametrize("padding", [False, True])
def test_rounds_of_the_reference(draw: ResolvedInit, *, padding: bool) -> None:
    """Three rounds of ConvRFM, power ½, agree with the official code to six significant digits."""
    train, test = draw((6, 2, 6, 6), 11, 2.0), draw((4, 2, 6, 6), 12, 2.0)
    targets = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    architecture = Architecture(3, 2, padding)
    factor = None
    for number in range(3):
        found = kernel(train, PatchInputs(architecture, same, factor))
        across = torch.cat(list(kernel_rows(test, train, PatchInputs(architecture, same, factor))))
        largest = found.max()
        alpha = torch.linalg.solve(found / largest + 1e-3 * torch.eye(6, dtype=torch.float64), targets)
        gram = patch_agop(train[:4], train, alpha, PatchInputs(architecture, same, factor))
        actual = [found[0, 0], found[0, 1], found[1, 2], largest, across[0, 0]]
        actual += [*(across[0] / largest @ alpha), gram.trace(), gram.norm(), gram[0, 0], gram[2, 5]]

        assert [float(value) for value in actual] == pytest.approx(SPOT[padding, number], rel=2e-6, abs=6e-8)
        factor, _ = learned(gram, power=0.5)
        if (padding, number) == (False, 0):
            entries = [float(factor.trace()), float(factor[0, 0]), float(factor[0, 1])]
            assert entries == pytest.approx((3.9548851, 0.1800503, -0.0173284), abs=6e-8)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradients_equal_autograd(draw: ResolvedInit, depth: int) -> None:
    """The folded gradient is that of the formulas, differentiated output by output."""
    images, others = draw((3, 2, 8, 8), 1, 1.0), draw((5, 2, 8, 8), 2, 1.0)
    alpha = draw((5, 3), 3, 1.0)
    expected = plain_agop(
        plain_patches(images, 3),
        plain_patches(others, 3),
        alpha,
        channels=2,
        side=3,
        depth=depth,
    )
    actual = patch_agop(images, others, alpha, PatchInputs(Architecture(3, depth), same))

    assert torch.allclose(expected, actual, rtol=1e-10, atol=1e-12 * float(expected.max()))


def test_agop_does_not_depend_on_blocks(draw: ResolvedInit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of images, tiles and blocks of pairs change nothing but rounding."""
    images, alpha, architecture = draw((5, 2, 6, 6), 3, 1.0), draw((5, 2), 4, 1.0), Architecture(3, 2)
    whole = patch_agop(images, images, alpha, PatchInputs(architecture, same))
    monkeypatch.setattr(agop, "GRADIENT_ELEMENTS", {"cpu": 16 * 18 * 2 * 2})
    monkeypatch.setattr(cntk, "TILE_ELEMENTS", {"cpu": 16 * 18 * 2})
    monkeypatch.setattr(cntk, "MAP_ELEMENTS", {"cpu": 16})
    shares: list[float] = []
    parts = patch_agop(images, images, alpha, PatchInputs(architecture, same), progress=shares.append)

    assert torch.allclose(whole, parts, rtol=1e-12)
    assert len(shares) == 9
    assert shares[-1] == 1.0


def test_single_precision_is_close(draw: ResolvedInit) -> None:
    """An image and itself, where the slope of arccos is infinite, spoils nothing in float32."""
    images, alpha = draw((6, 2, 6, 6), 3, 1.0), draw((6, 2), 4, 1.0)
    double = patch_agop(images, images, alpha, PatchInputs(Architecture(3, 2), same))
    single = patch_agop(images, images, alpha, PatchInputs(Architecture(3, 2), lambda part: part.float()))

    assert float((single - double).norm() / double.norm()) < 2e-3


def test_empty_patches_have_finite_gradients() -> None:
    """Where a patch is zero its norm has no slope; nothing becomes NaN."""
    images = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    images[1] = 1.0
    found = patch_agop(images, images, torch.ones(2, 1).double(), PatchInputs(Architecture(3, 2), same))

    assert bool(found.isfinite().all())
    assert float(found.trace()) > 0.0
