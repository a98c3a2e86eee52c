"""Named initializers for banks of filters that stay frozen: simple shapes, each channel's with a random sign.

All match the energy of PyTorch's default, so that frozen banks differ by their shape alone.
"""

from typing import Literal

from pydantic import Field

from mimetic.recipe.base import Count, Positive, Spec
from mimetic.recipe.registry import register


class Bank(Spec):
    """Base of the banks of filters."""

    gain: Positive = Field(1.0, description="Factor on the weights.")


@register("init")
class Impulse(Bank):
    """One random tap in each channel of a filter (Zheng, Li and Lucey, arXiv 2401.12511)."""

    type: Literal["impulse"] = "impulse"


@register("init")
class Box(Bank):
    """Several random taps of equal height in each channel of a filter (arXiv 2401.12511)."""

    type: Literal["box"] = "box"
    taps: Count = Field(3, description="Number of taps.")


@register("init")
class GaussianBump(Bank):
    """A Gaussian bump around a random pixel in each channel of a filter (arXiv 2401.12511)."""

    type: Literal["gaussian_bump"] = "gaussian_bump"
    sigma: Positive = Field(1.0, description="Standard deviation of the bump in pixels.")


@register("init")
class GaussianDerivatives(Bank):
    """A random derivative of a centred Gaussian in each channel of a filter (arXiv 1605.02971)."""

    type: Literal["gaussian_derivatives"] = "gaussian_derivatives"
    sigma: Positive = Field(1.0, description="Standard deviation of the Gaussian in pixels.")
    order: int = Field(2, ge=0, le=4, description="Highest order; in two dimensions 2 makes six filters.")
