"""Initializers of state spaces and of MLP pairs, which fill several parameters together."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mimetic.recipe.base import Positive, Spec, mistake
from mimetic.recipe.registry import register


@register("init")
class MimeticSsm(Spec):
    """Start Mamba's layer as linear attention, in four components (arXiv 2410.11135)."""

    acts_on = "ssm"

    type: Literal["mimetic_ssm"] = "mimetic_ssm"
    decay: bool = Field(True, description="A close to 0, so that the state keeps what it was given.")
    step: bool = Field(True, description="Δ = 1 for every token: its weights 0, its bias softplus⁻¹(1).")
    recall: bool = Field(True, description="Correlate c with b, as queries with keys.")
    convolution: bool = Field(True, description="Let the short convolution pass its input on.")
    power: Positive = Field(8.0, description="A = -exp(-power · A_log): how close to 0 A comes.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.decay or self.step or self.recall or self.convolution):
            hint = "switch `decay`, `step`, `recall` or `convolution` on, or remove the rule"
            raise mistake("all four components are switched off", hint=hint)
        return self


@register("init")
class MimeticMlp(Spec):
    """Give the first layer of an MLP pair a mean that is not zero (arXiv 2602.07156)."""

    acts_on = "mlp"

    type: Literal["mimetic_mlp"] = "mimetic_mlp"
    shift: float = Field(
        0.5,
        description="Mean, in units of the law's standard deviation; to be swept.",
    )
    std: Positive | None = Field(
        None, description="Draw from a normal law of this standard deviation; torch's own law unless given."
    )
