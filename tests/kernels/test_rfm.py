"""RFM against the values of both official codes, autograd, and itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mimetic.kernels.config import Rfm
from mimetic.kernels.laplace import laplace, laplace_agop
from mimetic.kernels.laplace import laplace as kernel_of
from mimetic.kernels.problem import Problem
from mimetic.kernels.rfm import next_metric, rfm

ResolvedInit = Callable[..., Tensor]


def rounds_of(spec: Rfm, draw: ResolvedInit, count: int) -> list[tuple[Tensor | None, list[float]]]:
    """Return M and the test predictions of each round on the reference's regression, y = x₀·x₁."""
    points, test = draw((12, 4), 21, 4.0), draw((3, 4), 22, 4.0)
    targets = (points[:, 0] * points[:, 1])[:, None]
    metric: Tensor | None = None
    found: list[tuple[Tensor | None, list[float]]] = []
    for _ in range(count + 1):
        shifted = laplace(points, points, metric, 10.0) + 1e-3 * torch.eye(12, dtype=torch.float64)
        alpha = torch.linalg.solve(shifted, targets)
        found.append((metric, (laplace(test, points, metric, 10.0) @ alpha).flatten().tolist()))
        metric = next_metric(points, alpha, metric, spec)
    return found


def test_rounds_of_the_paper_s_code(draw: ResolvedInit) -> None:
    """Centred, mean over points: predictions and metrics of three rounds."""
    expected = [
        (-0.8324677156, 0.6044173793, -0.4261635447),
        (-0.7652416927, 0.0077554915, -0.1168547310),
        (-0.4668812881, -0.4081090579, -0.1539117668),
        (-0.4350087798, -0.4798023913, -0.1478586958),
    ]
    found = rounds_of(Rfm(), draw, 3)
    one, two, three = (metric for metric, _ in found if metric is not None)

    for (_, actual), values in zip(found, expected, strict=True):
        assert actual == pytest.approx(values, abs=2e-8)
    assert one.diagonal().tolist() == pytest.approx(
        (0.0320349310, 0.0916930897, 0.0170708313, 0.0287294251), abs=1e-9
    )
    assert float(one[0, 1]) == pytest.approx(-0.0316907355, abs=1e-9)
    assert float(two.trace()) == pytest.approx(0.4274324025, abs=1e-8)
    assert three.diagonal().tolist() == pytest.approx(
        (0.1349611201, 0.6159965585, 0.0193085720, 0.0331844793), abs=1e-8
    )


def test_a_round_without_centring(draw: ResolvedInit) -> None:
    """The second switch of the paper's code."""
    _, (metric, actual) = rounds_of(Rfm(centered=False), draw, 1)

    assert metric is not None
    assert float(metric.trace()) == pytest.approx(0.4651708792, abs=1e-8)
    assert actual == pytest.approx((-0.9436051272, -0.1985746267, 0.0376442672), abs=1e-8)


def test_rounds_of_the_authors_package(draw: ResolvedInit) -> None:
    """Not centred, over the largest entry; the package computes in single precision."""
    found = rounds_of(Rfm(centered=False, scaling="max"), draw, 3)
    diagonals = [metric.diagonal().tolist() for metric, _ in found if metric is not None]
    across = [float(metric[0, 1]) for metric, _ in found if metric is not None]

    assert diagonals[0] == pytest.approx((0.170212, 1.0, 0.052177, 0.123727), abs=1e-4)
    assert diagonals[1] == pytest.approx((0.145071, 1.0, 0.010032, 0.077013), abs=1e-4)
    assert diagonals[2] == pytest.approx((0.145540, 1.0, 0.006651, 0.070978), abs=1e-4)
    assert across == pytest.approx((-0.330316, -0.380074, -0.381434), abs=1e-4)
    assert found[-1][1] == pytest.approx((-0.951324, -0.485538, -0.102537), abs=5e-4)


def test_agop_equals_autograd(draw: ResolvedInit) -> None:
    """At points apart from the training points the formula is the gradient of the predictor."""
    points, others = draw((4, 3), 1, 2.0), draw((6, 3), 2, 2.0)
    alpha = draw((6, 2), 3, 1.0)
    root = draw((3, 3), 4, 1.0)
    metric = root @ root.T
    inputs = points.clone().requires_grad_()
    difference = inputs[:, None] - others
    distance = ((difference @ metric) * difference).sum(2).sqrt()
    answers = torch.exp(-distance / 2.0) @ alpha
    gradients = [torch.autograd.grad(answers[:, o].sum(), inputs, retain_graph=True)[0] for o in (0, 1)]
    expected = sum((g.T @ g for g in gradients), torch.zeros(3, 3).double()) / 4
    centered = sum(((g - g.mean(0)).T @ (g - g.mean(0)) for g in gradients), torch.zeros(3, 3).double()) / 4

    assert torch.allclose(expected, laplace_agop(points, others, alpha, metric, 2.0))
    assert torch.allclose(centered, laplace_agop(points, others, alpha, metric, 2.0, centered=True))
    assert torch.allclose(torch.exp(-distance / 2.0), kernel_of(points, others, metric, 2.0))


@pytest.mark.parametrize(("power", "diagonal"), [(0.5, False), (1.0, True)])
def test_powers_and_diagonals(draw: ResolvedInit, power: float, *, diagonal: bool) -> None:
    """M is the AGOP, its square root, or its diagonal."""
    points, alpha = draw((5, 3), 1, 2.0), draw((5, 1), 2, 1.0)
    whole = next_metric(points, alpha, None, Rfm())
    found = next_metric(points, alpha, None, Rfm(power=power, diagonal=diagonal))
    expected = torch.diag(whole.diagonal()) if diagonal else whole

    assert torch.allclose(expected, found @ found if power == 0.5 else found, atol=1e-12)


def test_a_learner_tells_every_split(given: Problem) -> None:
    """Round 0 has the plain kernel; ridges are chosen by what they do on validation images."""
    rounds = list(rfm(Rfm(rounds=2), given))

    assert [done.number for done in rounds] == [0, 1, 2]
    assert [done.covariances[0] is None for done in rounds] == [True, False, False]
    assert set(rounds[0].metrics) == {
        "train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc", "ridge",
    }  # fmt: skip
