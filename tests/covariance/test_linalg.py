"""Linear algebra with one thread: what it computes, and that the number of threads is restored."""

import pytest
import torch

from mimetic.covariance.linalg import smaller_gram, symmetric_root
from mimetic.threads import one_thread


def test_threads_are_restored_also_after_an_error() -> None:
    """Inside there is one thread; afterwards as many as before, whatever happened."""
    before = torch.get_num_threads()

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError):
            fail()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("psd", ["abs", "clip"])
def test_root_squares_to_the_repaired_matrix(psd: str) -> None:
    """R² has the eigenvectors of the matrix and its repaired eigenvalues."""
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    root, values = symmetric_root(matrix, psd=psd)
    expected = {"abs": [[2.0, 1.0], [1.0, 2.0]], "clip": [[1.5, 1.5], [1.5, 1.5]]}[psd]
    assert torch.allclose(torch.tensor(expected, dtype=torch.float64), root @ root)
    assert torch.allclose(torch.tensor([-1.0, 3.0], dtype=torch.float64), values)


@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (7, 3)])
def test_smaller_gram_has_the_smaller_side(rows: int, columns: int) -> None:
    """The Gram matrix is the small one, with the same trace and norm as the large one."""
    factor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram, dense = smaller_gram(factor), factor.T @ factor
    assert gram.shape == (3, 3)
    assert float(dense.trace()) == pytest.approx(float(gram.trace()))
    assert float(dense.norm()) == pytest.approx(float(gram.norm()))
