"""Neural feature matrices: definitions and spot values."""

import math
from types import SimpleNamespace

import pytest
import torch

from mimetic.covariance.weights import nfm


def test_spot_values_of_the_tiny_vgg(make: SimpleNamespace) -> None:
    """WᵀW of the reference's two layers has its traces, norms and entries."""
    first, second = nfm(make.lcg((3, 2, 3, 3), 1)), nfm(make.lcg((4, 3, 3, 3), 2))
    entries = ((0, 0), (0, 1), (2, 5), (-1, -1))
    found = [
        (cov.trace, float(cov.dense().norm()), *(float(cov.dense()[at]) for at in entries))
        for cov in (first, second)
    ]
    expected = [
        (4.214560380414, 2.495345871592, 0.083821589990, 0.086353445961, 0.013899918732, 0.094176107627),
        (10.020397199246, 5.273565692601, 0.446926159082, 0.020998210457, 0.171335072668, 0.386543303010),
    ]
    assert expected[0] == pytest.approx(found[0], abs=1e-11)
    assert expected[1] == pytest.approx(found[1], abs=1e-11)


def test_the_mean_divides_by_the_filters(make: SimpleNamespace) -> None:
    """The hyper-parameter study's NFM is the mean over filters."""
    assert nfm(make.lcg((3, 2, 3, 3), 1), normalize="mean").trace == pytest.approx(1.404853460138, abs=1e-11)
    assert nfm(make.lcg((4, 3, 3, 3), 2), normalize="mean").trace == pytest.approx(2.505099299812, abs=1e-11)


def test_the_factor_is_the_weight(make: SimpleNamespace) -> None:
    """Drawing is ε·W: no matrix of 4608 × 4608 is formed for a layer of VGG's."""
    weight = torch.randn(512, 512, 3, 3, generator=torch.Generator().manual_seed(0))
    cov = nfm(weight, source="features.18")
    assert torch.equal(weight.double().flatten(1), cov.factor_RD)
    assert (cov.patch.channels, cov.patch.kernel_size, cov.provenance.rank) == (512, (3, 3), 512)
    assert nfm(make.lcg((5, 7), 1)).patch.kernel_size == ()


def test_study_spot_values(make: SimpleNamespace) -> None:
    """The study's reference weight has its trace and eigenvalue, and its formula its rms weight."""
    cov = nfm(make.lcg((8, 3, 3, 3), 51))
    coefficient = math.sqrt(2 / 27)
    drawn = cov.scale_by(math.sqrt(coefficient)).sample(20_000, torch.Generator().manual_seed(0))
    assert cov.trace == pytest.approx(17.622266345508 - 27e-6, abs=2e-6)
    assert cov.provenance.largest_eigenvalue == pytest.approx(4.244412046300 - 1e-6, abs=2e-8)
    assert cov.provenance.largest_eigenvalue / cov.trace == pytest.approx(0.240855061607, abs=1e-6)
    assert coefficient == pytest.approx(0.2721655269759087, abs=1e-15)
    assert float(drawn.square().mean().sqrt()) == pytest.approx(0.4226, rel=0.01)
