"""`rainbow`: every layer resampled from the covariance a trained network's layer has."""

from typing import Literal

from pydantic import Field

from mimetic.recipe.base import Count
from mimetic.recipe.measured import FromNetwork
from mimetic.recipe.registry import register


@register("init")
class Rainbow(FromNetwork):
    """Resample a trained network of the same layers, of any widths (arXiv 2305.18512).

    Layer by layer, filters are drawn from the covariance of the trained layer's filters and rotated to the
    channels of the layers drawn before; the norm layers' statistics are measured anew, and the last layer is
    carried over.
    """

    type: Literal["rainbow"] = "rainbow"
    images: Count = Field(1000, description="Training images the networks are aligned on.")
    align: bool = Field(
        True, description="Rotate by Procrustes on features; false takes a random rotation, for comparison."
    )
    rows: Literal["gaussian", "orthogonal"] = Field(
        "gaussian", description="Independent filters, or filters whose covariance is met exactly."
    )
    shrink: Literal["none", "spiked"] = Field(
        "none", description="Take the noise of random initialization out of the eigenvalues."
    )
    rank: Count | None = Field(None, description="Keep only this many leading eigenvectors.")
