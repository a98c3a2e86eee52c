"""The reference's language-independent fill rule, and random factors."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from mimetic.covariance.covariance import Covariance, PatchGeometry


def lcg(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    """Return the reference's tensor: s ← (1103515245·s + 12345) mod 2³¹, value (s/2³¹ − ½)·scale."""
    state, values = seed, []
    for _ in range(torch.Size(shape).numel()):
        state = (1103515245 * state + 12345) % 2**31
        values.append((state / 2**31 - 0.5) * scale)
    return torch.tensor(values, dtype=torch.float64).view(shape)


def random_covariance(rank: int, channels: int, kernel: tuple[int, ...], seed: int = 0) -> Covariance:
    """Return a covariance with a random factor."""
    patch = PatchGeometry(channels, kernel)
    stream = torch.Generator().manual_seed(seed)
    return Covariance(torch.randn(rank, patch.size, generator=stream, dtype=torch.float64), patch)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Return the makers of reference tensors and random covariances."""
    makers: tuple[Callable[..., object], ...] = (lcg, random_covariance)
    return SimpleNamespace(**{maker.__name__: maker for maker in makers})
