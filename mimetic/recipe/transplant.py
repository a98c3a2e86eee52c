"""Initializers that take the weights of another network as they are: from where, and fitted how."""

from typing import Literal

from pydantic import Field

from mimetic.recipe.base import Count
from mimetic.recipe.measured import FromNetwork
from mimetic.recipe.registry import register


@register("init")
class WeightSelection(FromNetwork):
    """Take evenly spaced entries of a larger network's weights of the same name (arXiv 2311.18823)."""

    type: Literal["weight_selection"] = "weight_selection"


@register("init")
class WeightTiling(FromNetwork):
    """Repeat a smaller network's weights cyclically, at the same norm (arXiv 2609.37631)."""

    type: Literal["weight_tiling"] = "weight_tiling"
    blocks: Count | None = Field(
        None,
        description="Number of blocks of our network: its first and last are those of the other, the ones "
        "between repeat its middle blocks in turn. Blocks of the same number correspond unless given.",
    )
    parts: Count = Field(
        1, description="Maps a tensor's outputs stand for, tiled apart: 3 for a fused `qkv`."
    )
    keep: Literal["norm", "entries"] = Field(
        "norm", description="What tiling keeps of a weight: its Frobenius norm, or each entry."
    )
