"""Leading eigenvectors as filters."""

from types import SimpleNamespace

import pytest
import torch

from mimetic.covariance.pictures import eigenfilters, eigenpatches


@pytest.mark.parametrize("rank", [4, 9, 30])
def test_they_are_eigenvectors_of_the_matrix(make: SimpleNamespace, rank: int) -> None:
    """Largest first, of unit norm, with their largest entry positive."""
    cov = make.random_covariance(rank, 1, (3, 3))
    found = eigenfilters(cov, 3).flatten(1)
    values = torch.linalg.eigvalsh(cov.dense()).flip(0)[:3]
    torch.testing.assert_close(found @ cov.dense(), values[:, None] * found)
    torch.testing.assert_close(found @ found.T, torch.eye(3, dtype=torch.float64))
    assert all(float(row[row.abs().argmax()]) > 0 for row in found)


def test_channels_are_averaged(make: SimpleNamespace) -> None:
    """Those of the mean of the diagonal blocks."""
    cov = make.random_covariance(8, 3, (2, 2))
    blocks = cov.dense().view(3, 4, 3, 4)
    mean = sum(blocks[c, :, c] for c in range(3)) / 3
    found = eigenfilters(cov, 1).flatten(1)
    torch.testing.assert_close(found @ mean, torch.linalg.eigvalsh(mean)[-1] * found)


@pytest.mark.parametrize("rank", [2, 12, 20])
def test_whole_patches_are_eigenvectors_too(make: SimpleNamespace, rank: int) -> None:
    """With their channels apart, for any kernel."""
    cov = make.random_covariance(rank, 3, (2, 2))
    found = eigenpatches(cov, 2)
    flat = found.flatten(1)
    values = torch.linalg.eigvalsh(cov.dense()).flip(0)[:2]
    assert found.shape == (2, 3, 2, 2)
    torch.testing.assert_close(flat @ cov.dense(), values[:, None] * flat)
    torch.testing.assert_close(flat @ flat.T, torch.eye(2, dtype=torch.float64))


def test_absent_directions_are_left_out(make: SimpleNamespace) -> None:
    """A factor of two rows spans two."""
    assert eigenfilters(make.random_covariance(2, 1, (3, 3)), 9).shape == (2, 3, 3)


@pytest.mark.parametrize("kernel", [(), (1, 1), (3,), (3, 3, 3)])
def test_there_must_be_a_picture(make: SimpleNamespace, kernel: tuple[int, ...]) -> None:
    """Linear layers, single pixels, signals and clips have none."""
    assert eigenfilters(make.random_covariance(2, 2, kernel), 9) is None
