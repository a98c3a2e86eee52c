"""Initializers of attentions and of position tables, which fill several parameters together."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mimetic.recipe.base import Count, FromList, NonNegative, Positive, Spec, mistake
from mimetic.recipe.registry import register

Bias = Literal["zeros", "keep"]
Grid = Annotated[tuple[Count, Count], FromList]


class _ValueProjection(Spec):
    """The value–projection product A = vp_noise·Z − vp_diag·I that several initializers share."""

    acts_on: ClassVar[str | None] = "attention"

    vp_noise: NonNegative = Field(0.4, description="Size of the noise in the value–projection product.")
    vp_diag: float = Field(
        0.4,
        description="The identity subtracted there; negative for a positive diagonal, as in language models.",
    )
    noise: Literal["uniform", "normal"] = Field("uniform", description="Law of the noise, of variance 1/d.")

    @model_validator(mode="after")
    def _not_dead(self) -> Self:
        if self.vp_noise == 0.0 and self.vp_diag == 0.0:
            hint = "give one of them; a projection of zeros alone is `init: zeros`"
            raise mistake("`vp_noise` and `vp_diag` are both 0: both maps would stay 0", hint=hint)
        return self


@register("init")
class MimeticAttention(_ValueProjection):
    """Begin attention with W_Q·W_Kᵀ ≈ αZ + βI by head and W_V·W_out ≈ αZ − βI (arXiv 2305.09828)."""

    type: Literal["mimetic_attention"] = "mimetic_attention"
    qk_noise: Positive = Field(0.7, description="Size of the noise in the query–key product of a head.")
    qk_diag: float = Field(0.7, description="The identity in it.")
    bias: Bias = Field("zeros", description="What becomes of the biases.")
    legacy_layout: bool = Field(
        False, description="Store values and projection untransposed, as the public helpers did by mistake."
    )


@register("init")
class ImpulseAttention(_ValueProjection):
    """Begin each head looking at one neighbour of a token, in closed form (arXiv 2505.19985)."""

    type: Literal["impulse_attention"] = "impulse_attention"
    grid: Grid | None = Field(
        None, description="Rows and columns of the tokens; those of the model's position table unless given."
    )
    layout: Literal["timm", "simple"] = Field(
        "timm", description="Layout of the sinusoids that stand for the tokens, see `sincos2d`."
    )
    temperature: Positive = Field(10000.0, description="Longest wavelength of the sinusoids, over 2π.")
    norm: Positive = Field(7.0, description="Frobenius norm of each head's queries and keys.")
    bias: Bias = Field("keep", description="What becomes of the biases.")


@register("init")
class ConditionedAttention(Spec):
    """Begin attention well conditioned: semi-orthogonal queries and keys by head, values the identity."""

    acts_on: ClassVar[str | None] = "attention"

    type: Literal["conditioned_attention"] = "conditioned_attention"
    bias: Bias = Field("keep", description="What becomes of the biases of queries, keys and values.")


@register("init")
class Sincos2d(Spec):
    """Fill a position table with sines and cosines of row and column; tokens before the grid with zeros."""

    acts_on: ClassVar[str | None] = "position"

    type: Literal["sincos2d"] = "sincos2d"
    layout: Literal["timm", "simple"] = Field(
        "timm",
        description="timm: [sin y, sin x, cos y, cos x], bands T^(−b/n); "
        "simple (Simple-ViT): [sin x, cos x, sin y, cos y], bands T^(−b/(n−1)).",
    )
    scale: Positive = Field(1.0, description="Amplitude.")
    temperature: Positive = Field(10000.0, description="The T of the bands.")
    grid: Grid | None = Field(None, description="Rows and columns, where the model does not tell them.")
