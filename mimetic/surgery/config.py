"""Sections of `surgery`: rewrites of a network, applied before its sites are found. No torch.

A rewrite is a section here and one function (`impl`, protocol `mimetic.surgery.rewrite.ReplaceLayers`). It
replaces the layers that it matches. Rules see the rewritten network; they initialize the new layers and may
freeze more of them.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from mimetic.config.base import Name, validation_error
from mimetic.config.registry import Component
from mimetic.graph.config import Match, MatchField

MAX_EXPANSION = 1024
"""Largest expansion; the paper's largest is 128."""


class Rewrite(Component, family="surgery"):
    """Base of the rewrites: the layers to replace, and an id by which rewrites merge, like rules."""

    example: ClassVar[Mapping[str, object]] = {"id": "rewrite", "match": "body"}

    id: Name = Field(description="Name of the rewrite: rewrites merge, and are overridden, by it.")
    match: MatchField = Field(description="Conditions, or a plain string for the layer's name.")
    expect: int | None = Field(
        None, ge=1, description="Number of layers the rewrite must replace; anything else is an error."
    )

    @field_validator("match")
    @classmethod
    def _whole_layers(cls, value: Match) -> Match:
        if value.param is not None:
            raise validation_error(
                "a rewrite replaces whole layers, so it has no `param`",
                code="MIM-U040",
                at=("param",),
                hint="remove it; rules select parameters",
            )
        return value


class _Freezing(Rewrite):
    freeze: bool = Field(default=True, description="Freeze the filters; a rule may freeze them as well.")


class LinearCombination(
    _Freezing, type="linear_combination", impl="mimetic.surgery.linear_combination:linear_combination"
):
    """Replace a k×k convolution by expansion times as many filters and a 1×1 convolution of their outputs.

    Gavrikov and Keuper, "The Power of Linear Combinations", arXiv 2301.11360.
    """

    expansion: int = Field(
        1, ge=1, le=MAX_EXPANSION, description="Filters per output channel of the layer that is replaced."
    )
    norm: bool = Field(
        default=False, description="Batch normalization between the two, which prevents folding."
    )
    activation: Literal["none", "relu"] = Field(
        "none", description="Nonlinearity between the two, after the norm; prevents folding."
    )


class Fold(Rewrite, type="fold", impl="mimetic.surgery.linear_combination:fold"):
    """Replace a linear combination by the one convolution with the same outputs.

    Matches the k×k filters of linear combinations in the model itself.
    """

    example: ClassVar[Mapping[str, object]] = {"id": "rewrite", "match": "combined\\.filters"}


class SharedFilters(_Freezing, type="shared_filters", impl="mimetic.surgery.shared_filters:shared_filters"):
    """Share one tensor of filters among convolutions, each at its scale 1/sqrt(C_in·k²).

    Gavrikov and Keuper, arXiv 2301.11360, version 1.
    """


class Factorised(_Freezing, type="factorised", impl="mimetic.surgery.factorised:factorised"):
    """Replace a convolution by frozen Gaussian filters with learned factors for channels and pixels.

    White et al., "Learning and aligning structured random feature networks", Re-Align 2024.
    """
