"""The Laplace distribution, by inversion of its distribution function."""

import math

import torch
from torch import Generator, Tensor

from mimetic.initializers.distributions import Distribution, Shape, independent, per_tensor
from mimetic_example.config import Laplace


@per_tensor
def laplace(spec: Laplace, shape: Shape) -> Distribution:
    """X = −b·sign(u)·ln(1 − 2|u|) with u uniform in (−½, ½) and b = std / √2."""
    scale = spec.std / math.sqrt(2.0)

    def fill(tensor: Tensor, stream: Generator) -> None:
        uniform = torch.rand(tensor.shape, generator=stream, dtype=torch.float64).sub_(0.5)
        tail = uniform.abs().mul_(2.0).clamp_(max=1.0 - 2.0**-53)  # the logarithm of 0 is infinite
        tensor.copy_(-scale * uniform.sign() * torch.log1p(-tail))

    return Distribution(fill, independent(shape, spec.std), elementwise=True)
