"""Initializers that take the weights of another network as they are: from where, and fitted how."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mimetic.recipe.base import Count, Spec
from mimetic.recipe.measured import Origin, no_text
from mimetic.recipe.registry import register


class Transplant(Spec):
    """Base of the initializers that take another network's weights."""

    from_: Annotated[Origin, BeforeValidator(no_text, json_schema_input_type=Origin)] = Field(
        alias="from", description="The trained network."
    )


@register("init")
class WeightSelection(Transplant):
    """Take evenly spaced entries of a larger network's weights of the same name (arXiv 2311.18823)."""

    type: Literal["weight_selection"] = "weight_selection"


@register("init")
class WeightTiling(Transplant):
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
