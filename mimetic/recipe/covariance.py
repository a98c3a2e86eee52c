"""Where the covariance of a rule comes from."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from mimetic.recipe.base import FromList, NonNegative, Positive, Section, Spec
from mimetic.recipe.registry import Registered, register


class Width(Section):
    """Width of the closed form over depth d in [0, 1]: start + linear·d + ½·quadratic·d²."""

    expected: ClassVar[str] = "a number or a map such as `{start: 0.15, linear: 0.5}`"

    start: NonNegative = Field(0.15, description="Width at the first layer.")
    linear: float = Field(0.5, description="Growth per unit of depth.")
    quadratic: float = Field(0.25, description="Acceleration of the growth (enters with ½).")

    def at(self, depth: float) -> float:
        """Return the width at a depth fraction."""
        return self.start + self.linear * depth + 0.5 * self.quadratic * depth * depth


def _constant(value: Any) -> Any:
    """Let a plain number stand for the same width at every depth."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"start": value, "linear": 0.0, "quadratic": 0.0}
    return value


@register("covariance")
class ClosedForm(Spec):
    """Closed-form covariance of convolution filters, free of data and training (arXiv 2210.03651)."""

    type: Literal["closed_form"] = "closed_form"
    width: Annotated[Width, BeforeValidator(_constant, json_schema_input_type=float | Width)] = Field(
        default_factory=Width, description="Width of the Gaussian bumps over depth, or one number."
    )
    padding: Literal["wrap", "zero"] = Field(
        "wrap", description="What a bump shifted over the border meets: the other side, or zeros."
    )
    psd: Literal["abs", "clip"] = Field(
        "abs", description="Negative eigenvalues become their absolute value (as numpy samples) or zero."
    )
    convention: Literal["variance", "std"] = Field(
        "variance", description="Whether the width is the bump's variance or its standard deviation."
    )


@register("covariance")
class Identity(Spec):
    """Independent weights of equal variance."""

    type: Literal["identity"] = "identity"
    variance: Positive = Field(1.0, description="Variance of each weight before scaling.")


class Part(Section):
    """One covariance of a mixture and its share."""

    expected: ClassVar[str] = "a map such as `{share: 0.5, covariance: closed_form}`"

    share: Positive = Field(1.0, description="Its share of the energy, relative to the other shares.")
    covariance: Annotated[Spec, Registered("covariance")] = Field(description="The covariance.")


@register("covariance")
class Mixture(Spec):
    """Weighted mean of covariances, each brought to trace 1 first, so that a share is one of the energy."""

    type: Literal["mixture"] = "mixture"
    parts: Annotated[tuple[Part, ...], Field(min_length=2, max_length=8), FromList] = Field(
        description="The covariances that are mixed."
    )
