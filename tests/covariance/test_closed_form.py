"""The closed form against its scalar formula and the reference's spot values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance.closed_form import closed_form, closed_form_matrix

# Trace, sum, Frobenius norm, smallest eigenvalue, negative eigenvalues and their mass, at width 1.
SPOT = {
    3: (3.3912109547, 11.9934407612, 1.6143212946, 0.0569544041, 0, 0.0),
    5: (4.5982406412, 19.0278121587, 1.8440999119, -0.01746558, 10, -0.09063186),
    7: (4.7086638650, 19.7178485416, 1.8576196016, -0.0220731, 20, -0.1278894955),
    9: (4.7120265263, 19.7389734915, 1.8577714198, -0.01797243, 40, -0.13812367),
}
ROW_K3 = (0.30021180, 0.18393972, 0.15546252, 0.18393972, 0.06766764, 0.06766764, 0.15546252, 0.06766764)
ZERO_ROW_K3 = (
    0.3002118,
    0.18393972,
    -0.06766764,
    0.18393972,
    0.06766764,
    -0.11156508,
    -0.06766764,
    -0.11156508,
    -0.06766764,
)
ENTRIES_K7 = {
    (24, 24): 0.5,
    (24, 17): 0.1839397206,
    (16, 32): -0.0609296946,
    (0, 48): 0.0000453923,
    (0, 24): 7.6e-9,
    (8, 40): -0.0001654710,
    (21, 27): 0.0066762421,
}
TRACES = {  # (side, width, convention): trace
    (3, 0.08, "variance"): 0.507729,
    (9, 0.08, "std"): 0.5,
    (3, 0.16, "variance"): 0.679601,
    (7, 0.16, "variance"): 0.679617,
    (3, 0.25, "variance"): 1.077301,
    (5, 0.25, "std"): 0.501342,
    (3, 0.5, "variance"): 2.205557,
    (9, 0.5, "variance"): 2.334088,
    (5, 0.5, "std"): 1.079007,
    (3, 2.0, "variance"): 4.092506,
    (5, 2.0, "std"): 10.401811,
    (7, 2.0, "variance"): 9.139237,
    (9, 2.0, "std"): 17.722106,
}
WIDTHS = st.floats(0.02, 20.0)
PADDINGS = st.sampled_from(["wrap", "zero"])


def scalar_formula(side: int, width: float, padding: str, convention: str) -> np.ndarray:
    """Return ½[(z_p + z_q)·z_{q-p} − z_p·z_q] pixel by pixel, the definition in plain loops."""
    c = side // 2
    variance = width if convention == "variance" else width * width

    def bump(*offset: int) -> float:
        return math.exp(-sum(x * x for x in offset) / (2.0 * variance))

    def moved(i: int, j: int, row: int, column: int) -> float:
        a, b = row - i + c, column - j + c
        if padding == "zero" and not (0 <= a < side and 0 <= b < side):
            return 0.0
        return bump(a % side - c, b % side - c)

    pixels = [(i, j) for i in range(side) for j in range(side)]
    matrix = np.empty((side * side, side * side))
    for p, (i, j) in enumerate(pixels):
        for q, (row, column) in enumerate(pixels):
            z_p, z_q = bump(i - c, j - c), bump(row - c, column - c)
            forth, back = moved(i, j, row, column), moved(row, column, i, j)
            matrix[p, q] = 0.5 * (z_p * forth + z_q * back - z_p * z_q)
    return matrix


@pytest.mark.parametrize("side", SPOT)
def test_spot_values_at_width_one(side: int) -> None:
    """Trace, sum, norm and the negative part of the spectrum are the reference's."""
    trace, total, norm, smallest, negatives, mass = SPOT[side]
    matrix = closed_form_matrix((side, side), 1.0)
    values = torch.linalg.eigvalsh(matrix)
    assert trace == pytest.approx(float(matrix.trace()), abs=1e-9)
    assert total == pytest.approx(float(matrix.sum()), abs=1e-9)
    assert norm == pytest.approx(float(matrix.norm()), abs=1e-9)
    assert smallest == pytest.approx(float(values[0]), abs=1e-8)
    assert negatives == int((values < -1e-12).sum())
    assert mass == pytest.approx(float(values.clamp(max=0).sum()), abs=1e-8)


def test_full_row_and_spectrum_of_side_three() -> None:
    """The first row, the spectrum and the determinant at k = 3 are the reference's."""
    matrix = closed_form_matrix((3, 3), 1.0)
    spectrum = (1.3404049729, 0.5281497806, 0.4348874215, 0.4000595888, 0.4000595888, 0.0884236227)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    assert pytest.approx(matrix[0, :8].tolist(), abs=1e-8) == ROW_K3
    assert spectrum == pytest.approx(tuple(values[:6].tolist()), abs=1e-9)
    assert pytest.approx(float(torch.linalg.det(matrix)), rel=1e-9) == 1.25571549936e-06


def test_zero_padding_spot_values() -> None:
    """Zeros beyond the border give the reference's row, sums and norm."""
    small = closed_form_matrix((3, 3), 1.0, padding="zero")
    large = closed_form_matrix((7, 7), 1.0, padding="zero")
    assert pytest.approx(small[0].tolist(), abs=1e-8) == ZERO_ROW_K3
    assert pytest.approx(float(small.trace()), abs=1e-9) == 3.3912109547
    assert pytest.approx(float(small.sum()), abs=1e-9) == 5.3278170353
    assert pytest.approx(float(large.sum()), abs=1e-9) == 18.8455205918
    assert pytest.approx(float(large.norm()), abs=1e-9) == 1.8570489425


def test_entries_of_side_seven() -> None:
    """Single entries, the smallest one and the share of negative ones are the reference's."""
    matrix = closed_form_matrix((7, 7), 1.0)
    assert pytest.approx({at: float(matrix[at]) for at in ENTRIES_K7}, abs=5e-10) == ENTRIES_K7
    assert pytest.approx(float(matrix.min()), abs=1e-9) == -0.1018547220
    assert pytest.approx(float((matrix < 0).double().mean()), abs=5e-5) == 0.2566


@pytest.mark.parametrize(("side", "width", "convention"), TRACES)
def test_traces_over_widths(side: int, width: float, convention: str) -> None:
    """The trace grows with the width as tabulated, in both conventions."""
    matrix = closed_form_matrix((side, side), width, convention=convention)
    assert TRACES[side, width, convention] == pytest.approx(float(matrix.trace()), abs=1e-6)


def test_width_of_a_late_layer() -> None:
    """K = 7 at width 1.92 has the reference's trace and sum in both conventions."""
    variance = closed_form_matrix((7, 7), 1.92)
    std = closed_form_matrix((7, 7), 1.92, convention="std")
    assert pytest.approx((float(variance.trace()), float(variance.sum()))) == (8.8128576527, 69.9460040195)
    assert pytest.approx((float(std.trace()), float(std.sum()))) == (14.5460865936, 204.8338003759)


def test_even_side_is_finite_and_symmetric() -> None:
    """K = 4 works as well, with the reference's trace."""
    matrix = closed_form_matrix((4, 4), 1.0)
    assert pytest.approx(float(matrix.trace()), abs=1e-12) == 3.976577890376891
    assert torch.equal(matrix, matrix.T)


@given(st.integers(1, 6), WIDTHS, PADDINGS, st.sampled_from(["variance", "std"]))
def test_blocks_equal_the_scalar_formula(side: int, width: float, padding: str, convention: str) -> None:
    """The vectorized construction is the scalar formula to 1e-12, wherever it is evaluated."""
    matrix = closed_form_matrix((side, side), width, padding=padding, convention=convention)
    np.testing.assert_allclose(scalar_formula(side, width, padding, convention), matrix, rtol=0, atol=1e-12)


@given(st.integers(1, 9), st.floats(0.02, 5.0), PADDINGS)
def test_standard_deviation_is_the_squared_variance(side: int, width: float, padding: str) -> None:
    """Width s as a standard deviation is exactly width s² as a variance."""
    std = closed_form_matrix((side, side), width, padding=padding, convention="std")
    variance = closed_form_matrix((side, side), width * width, padding=padding)
    assert torch.equal(variance, std)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3), WIDTHS, PADDINGS, st.sampled_from(["abs", "clip"])
)
def test_repaired_covariance_is_positive_semidefinite(
    sides: list[int], width: float, padding: str, psd: str
) -> None:
    """Kernels of any sides and dimensions give a symmetric PSD covariance with variance ½ in the middle."""
    kernel = tuple(sides)
    raw = closed_form_matrix(kernel, width, padding=padding)
    dense = closed_form(kernel, width, padding=padding, psd=psd).dense()
    middle = int(np.ravel_multi_index([side // 2 for side in kernel], kernel))
    scale = float(dense.diagonal().sum())
    assert pytest.approx(float(raw[middle, middle]), abs=1e-12) == 0.5
    assert torch.allclose(dense, dense.T, atol=1e-12 * scale, rtol=0)
    assert float(torch.linalg.eigvalsh(dense)[0]) >= -1e-12 * scale


def test_roots_of_side_three() -> None:
    """The symmetric root and what it makes of fixed normals are the reference's."""
    root = closed_form((3, 3), 1.0).factor_RD
    z = torch.arange(1, 10, dtype=torch.float64) / 10
    expected = (0.3227163974, 0.3755294051, 0.4378195799, 0.5178516758, 0.6226728662, 0.6601739465)
    found = [float(root[at]) for at in ((0, 0), (4, 4), (0, 1), (0, 8))]
    assert pytest.approx(found, abs=1e-9) == [0.4703047001, 0.6561895340, 0.1494259478, 0.0240926860]
    assert expected == pytest.approx(tuple((root @ z)[:6].tolist()), abs=1e-9)


@pytest.mark.parametrize(
    ("psd", "entries", "trace"),
    [
        ("abs", (9.2041790374, 0.6222701446, 0.0242283431, 0.1629796959, 0.0041721599), 4.9644428560),
        ("clip", (7.8432407309, 0.6138320411, 0.0131660312, 0.1686221837, -0.0081015915), 4.8365533605),
    ],
)
def test_roots_of_side_seven(psd: str, entries: tuple[float, ...], trace: float) -> None:
    """Both repairs give the reference's root and trace, and say what they did."""
    cov = closed_form((7, 7), 1.0, psd=psd)
    root = cov.factor_RD
    found = (float(root.trace()), *(float(root[at]) for at in ((24, 24), (0, 0), (24, 17), (10, 38))))
    assert entries == pytest.approx(found, abs=1e-9)
    assert trace == pytest.approx(cov.trace, abs=1e-9)
    assert cov.provenance.rank == (49 if psd == "abs" else 29)
    assert "20 of 49 eigenvalues were negative" in str(cov.provenance.repair)
    assert pytest.approx(cov.provenance.smallest_eigenvalue, abs=1e-7) == -0.0220731


def test_no_repair_where_none_is_needed() -> None:
    """K = 3 is positive definite: nothing is repaired and nothing is said."""
    assert closed_form((3, 3), 1.0).provenance.repair is None


def test_samples_follow_the_absolute_value_of_the_matrix() -> None:
    """2·10⁵ draws at k = 7 lie within 0.03 of V|Λ|Vᵀ, and 0.08 from the raw matrix."""
    cov = closed_form((7, 7), 1.0)
    filters = cov.sample(200_000, torch.Generator().manual_seed(0))
    found = filters.T @ filters / len(filters)
    raw = closed_form_matrix((7, 7), 1.0)
    values, vectors = torch.linalg.eigh(raw)
    absolute = (vectors * values.abs()) @ vectors.T
    assert float((found - absolute).norm()) < 0.03
    assert float((found - raw).norm()) > 0.06


def test_width_zero_is_the_limit() -> None:
    """A bump of no width is a single pixel: a random impulse in the middle."""
    matrix = closed_form_matrix((5, 5), 0.0)
    expected = torch.zeros(25, 25, dtype=torch.float64)
    expected[12, 12] = 0.5
    assert torch.equal(expected, matrix)
    assert torch.allclose(expected, closed_form_matrix((5, 5), 1e-4), atol=1e-12)


def test_a_side_of_one_adds_nothing() -> None:
    """A 7×1 kernel has the covariance of a kernel with one side of 7."""
    assert torch.equal(closed_form_matrix((7,), 0.7), closed_form_matrix((7, 1), 0.7))


def test_equal_layers_share_one_factor() -> None:
    """The root of equal arguments is computed once."""
    assert closed_form((9, 9), 0.3) is closed_form((9, 9), 0.3)
