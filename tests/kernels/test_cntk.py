"""The closed-form CNTK: the official code's values, blocks of any size, the diagonal, and memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mimetic.kernels import cntk
from mimetic.kernels.cntk import kernel, kernel_rows
from mimetic.kernels.patches import Architecture, PatchInputs

ResolvedInit = Callable[..., Tensor]

# padding: K[0,0], K[0,1], K[1,2], largest K, K_test[0,0] of the fixed kernel (neural-tangents, float64).
SPOT = {
    False: (73.5894455, 17.8068352, 23.4853687, 92.8965077, 28.9633454),
    True: (67.6972833, 15.6746798, 20.9481998, 79.9217016, 25.3804408),
}


def same(images: Tensor) -> Tensor:
    """Return images that are numbers already."""
    return images


def rows(images: Tensor, others: Tensor, architecture: Architecture) -> Tensor:
    """Return all rows of a kernel."""
    return torch.cat(list(kernel_rows(images, others, PatchInputs(architecture, same))))


@pytest.mark.parametrize("padding", [False, True])
def test_kernel_of_the_reference(draw: ResolvedInit, *, padding: bool) -> None:
    """Every value agrees to six significant digits with the official code."""
    train, test = draw((6, 2, 6, 6), 11, 2.0), draw((4, 2, 6, 6), 12, 2.0)
    architecture = Architecture(3, 2, padding)
    found = kernel(train, PatchInputs(architecture, same))
    across = rows(test, train, architecture)
    actual = [*(float(found[place]) for place in ((0, 0), (0, 1), (1, 2))), float(found.max())]

    assert [*actual, float(across[0, 0])] == pytest.approx(SPOT[padding], rel=5e-7)


def test_one_layer_is_the_arc_cosine_kernel(draw: ResolvedInit) -> None:
    """With patches as large as the images: K = Σ/c·(π−θ)/π + √(QQ')·κ(ρ)/c, written out."""
    images = draw((2, 1, 3, 3), 5, 2.0)
    one, other = images.flatten(1)
    norms = one.norm() * other.norm()
    angle = torch.arccos(one @ other / norms)
    share = (torch.pi - angle) / torch.pi
    expected = one @ other * share + norms * (angle.sin() / torch.pi + share * angle.cos())

    assert float(kernel(images, PatchInputs(Architecture(3, 1), same))[0, 1]) == pytest.approx(
        float(expected)
    )


def test_kernel_does_not_depend_on_blocks(draw: ResolvedInit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and tiles bound memory; they leave every pair as it is."""
    images, architecture = draw((7, 2, 6, 6), 3, 1.0), Architecture(3, 2)
    whole = kernel(images, PatchInputs(architecture, same))
    monkeypatch.setattr(cntk, "MAP_ELEMENTS", {"cpu": 16 * 4})
    monkeypatch.setattr(cntk, "TILE_ELEMENTS", {"cpu": 16 * 18 * 3})

    assert torch.allclose(whole, kernel(images, PatchInputs(architecture, same)), rtol=1e-13)
    assert torch.allclose(whole.fill_diagonal_(0.0), rows(images, images, architecture).fill_diagonal_(0.0))


def test_kernel_is_symmetric_and_positive(draw: ResolvedInit) -> None:
    """K(X, X) equals its transpose to the bit and has no negative eigenvalue."""
    found = kernel(draw((9, 1, 6, 6), 8, 2.0), PatchInputs(Architecture(3, 2), same))

    assert torch.equal(found, found.T)
    assert float(torch.linalg.eigvalsh(found)[0]) > 0.0


def test_diagonal_is_exact_in_single_precision(draw: ResolvedInit) -> None:
    """K(x, x) needs no arccos, which loses half of the digits at ρ = 1."""
    images, architecture = draw((4, 2, 6, 6), 9, 1.0), Architecture(3, 2)
    single = kernel(images, PatchInputs(architecture, lambda part: part.float())).diagonal()
    double = kernel(images, PatchInputs(architecture, same)).diagonal()

    assert torch.allclose(single, double, rtol=1e-6)


def test_empty_patches_count_for_nothing() -> None:
    """A patch of zeros has no direction; it leaves the kernel finite and adds nothing."""
    images = torch.zeros(3, 1, 5, 5, dtype=torch.float64)
    images[1:, :, :3, :3] = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    found = kernel(images, PatchInputs(Architecture(3, 2), same))

    assert bool(found.isfinite().all())
    assert found[0].tolist() == [0.0, 0.0, 0.0]


def test_images_that_are_not_square(draw: ResolvedInit) -> None:
    """Rows and columns of positions are told apart: transposed images have the same kernel."""
    images, architecture = draw((3, 1, 5, 8), 4, 1.0), Architecture(3, 2)

    assert Architecture(3, 2).grids(5, 8) == ((3, 6), (1, 4))
    assert torch.allclose(
        kernel(images, PatchInputs(architecture, same)), kernel(images.mT, PatchInputs(architecture, same))
    )


def test_progress_is_told_and_may_end_the_work(draw: ResolvedInit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that is done grows to one."""
    monkeypatch.setattr(cntk, "TILE_ELEMENTS", {"cpu": 16 * 9 * 2})
    shares: list[float] = []
    kernel(draw((5, 1, 6, 6), 3, 1.0), PatchInputs(Architecture(3, 2), same), progress=shares.append)

    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) == 6
