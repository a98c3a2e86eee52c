"""Rewrites of a network, applied before its sites are found: what a recipe says under `surgery`.

Each replaces the layers it matches by layers of another form. How is in `mimetic.surgery`; how the new
layers' weights begin, and which of them stay frozen beside what the rewrite freezes itself, is the
business of rules, which see the network as it is after surgery.
"""

from typing import Literal

from pydantic import Field, field_validator

from mimetic.config.base import Name, validation_error
from mimetic.config.registry import Component
from mimetic.graph.config import Match, MatchField

MAX_EXPANSION = 1024
"""Largest expansion; the study goes to 128, from where the filters outnumber their own coordinates."""


class Rewrite(Component, family="surgery"):
    """Base of the rewrites: which layers, and an id by which rewrites merge, like rules."""

    id: Name = Field(description="Name of the rewrite: rewrites merge, and are overridden, by it.")
    match: MatchField = Field(description="Conditions, or a plain string for the layer's name.")
    expect: int | None = Field(
        None, ge=1, description="Number of layers the rewrite must replace; anything else is an error."
    )

    @field_validator("match")
    @classmethod
    def _whole_layers(cls, value: Match) -> Match:
        if value.param is not None:
            message = "a rewrite replaces whole layers, so it has no `param`"
            raise validation_error(message, at=("param",), hint="remove it; rules choose parameters")
        return value


class _Freezing(Rewrite):
    freeze: bool = Field(
        default=True, description="Whether the filters stay as they begin; a rule may freeze them as well."
    )


class LinearCombination(_Freezing, type="linear_combination"):
    """Replace a k×k convolution by expansion times as many filters and a 1×1 convolution of their outputs.

    Gavrikov and Keuper, "The Power of Linear Combinations", arXiv 2301.11360.
    """

    expansion: int = Field(
        1, ge=1, le=MAX_EXPANSION, description="Filters per output channel of the layer that is replaced."
    )
    norm: bool = Field(
        default=False, description="Batch normalization between the two; then they cannot be folded."
    )
    activation: Literal["none", "relu"] = Field(
        "none", description="Nonlinearity between the two, after the norm; then they cannot be folded."
    )


class Fold(Rewrite, type="fold"):
    """Multiply the two layers of a linear combination out into one convolution of the same outputs.

    Matches the k×k filters of linear combinations that the model itself has.
    """


class SharedFilters(_Freezing, type="shared_filters"):
    """Let convolutions take their filters from one tensor, each at a scale 1/sqrt(C_in·k²) of its own.

    Gavrikov and Keuper, arXiv 2301.11360, version 1.
    """


class Factorised(_Freezing, type="factorised"):
    """Give a convolution frozen Gaussian filters and learned triangular factors, of channels and of pixels.

    White et al., "Learning and aligning structured random feature networks", Re-Align 2024.
    """
