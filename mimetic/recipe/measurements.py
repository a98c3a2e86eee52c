"""Measurements during training, in addition to loss and accuracy."""

from typing import Literal

from pydantic import Field

from mimetic.config.base import Count, Section
from mimetic.graph.config import MatchField


class Ansatz(Section):
    """How close each layer comes to NFM ∝ AGOP, the ansatz of feature learning (arXiv 2309.00570)."""

    every: Count = Field(
        1, description="Epochs between measurements; before training and after the last epoch in any case."
    )
    layers: MatchField | None = Field(
        None, description="Which convolutions and linear layers; all but the head unless given."
    )
    images: Count = Field(256, description="Training images the gradients are taken at.")
    probes: Count | Literal["exact"] | None = Field(
        None,
        description="Random combinations of outputs, or `exact`: every one. Unless given, every one of up to "
        "100 outputs, and 4 combinations of more.",
    )
    drop_bias: bool = Field(False, description="Drop each layer's own bias, as the paper's code does.")


class Measure(Section):
    """Measurements during training; none of them affects it."""

    ansatz: Ansatz | None = Field(None, description="Correlations of NFM and AGOP, layer by layer.")
