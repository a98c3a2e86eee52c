"""How large the weights of a covariance rule are.

Every scale fixes the trace of the covariance of one filter, its expected energy E‖f‖², and then
multiplies the weights by `gain`.
"""

from typing import Any, Literal

from pydantic import Field

from mimetic.recipe.base import Count, Positive, Spec
from mimetic.recipe.registry import register


class Scale(Spec):
    """Base of the scales."""

    gain: Positive = Field(1.0, description="Factor on the weights, after the scale.")


@register("scale")
class NoScale(Scale):
    """Leave the covariance as its source gives it."""

    type: Literal["none"] = "none"


@register("scale")
class Gain(Scale):
    """Multiply the weights by a number and nothing else."""

    type: Literal["gain"] = "gain"


@register("scale")
class Kaiming(Scale):
    """Give the average weight the variance 2 / fan_in (He et al., arXiv 1502.01852)."""

    type: Literal["kaiming"] = "kaiming"
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Which fan divides.")
    nonlinearity: Literal["linear", "relu", "tanh", "selu", "sigmoid"] = Field(
        "relu", description="Nonlinearity whose recommended gain is used."
    )


@register("scale")
class Xavier(Scale):
    """Give the average weight the variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    type: Literal["xavier"] = "xavier"


@register("scale")
class Trace(Scale):
    """Give the covariance of one filter a fixed trace."""

    type: Literal["trace"] = "trace"
    trace: Positive = Field(1.0, description="Trace of the covariance, the expected energy of a filter.")


@register("scale")
class MatchDefault(Scale):
    """Give a filter the energy of PyTorch's own default, U(±1/sqrt(fan_in)): trace 1/3."""

    type: Literal["match_default"] = "match_default"


@register("scale")
class StudyCompat(Scale):
    """Multiply the covariance, not the weights, by sqrt(2 / fan_in): `kaiming_nfm` of the NFM study.

    For comparisons with that study; `kaiming_agop` there divides by 100 as well.
    """

    type: Literal["study_compat"] = "study_compat"
    divisor: Positive = Field(1.0, description="Divides the covariance; 100 for the study's AGOP.")


@register("scale")
class Lsuv(Scale):
    """Give each layer's outputs on training images the deviation `gain`, in order (arXiv 1511.06422).

    The last step of all: it sees the network with every other parameter in place.
    """

    type: Literal["lsuv"] = "lsuv"
    images: Count = Field(256, description="Training images the outputs are measured on.")


def expand_gain(value: Any) -> Any:
    """Let a plain number, or a map without `type`, stand for `{type: gain}`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"type": "gain", "gain": value}
    if isinstance(value, dict) and "type" not in value and "gain" in value:
        return {"type": "gain", **value}
    return value
