"""What a rule matches: conditions on a layer, all of which must hold."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mimetic.recipe.base import Fraction, FromList, Section, mistake
from mimetic.recipe.patterns import LayerRegex, Regex, fullmatch

CompositeKind = Literal["attention", "position", "ssm", "mlp"]
"""Kinds of sites that take several parameters together; see `mimetic.graph.structure`."""

SiteKind = Literal[
    "conv",
    "depthwise_conv",
    "pointwise_conv",
    "conv_transpose",
    "linear",
    "norm",
    "embedding",
    "other",
    CompositeKind,
]
"""Kinds of sites; see `mimetic.graph`."""

COMPOSITE_KINDS: frozenset[str] = frozenset(get_args(CompositeKind))

__all__ = [
    "COMPOSITE_KINDS",
    "CompositeKind",
    "Match",
    "MatchField",
    "Range",
    "SiteKind",
    "Size",
    "fullmatch",
]


class Range(Section):
    """A closed range of whole numbers; an open end is left out."""

    expected: ClassVar[str] = "a whole number or a range such as `{min: 3, max: 9}`"

    min: int | None = Field(None, description="Smallest value that matches.")
    max: int | None = Field(None, description="Largest value that matches.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise mistake("the range has no end", hint="give `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise mistake(f"`min` {self.min} is larger than `max` {self.max}")
        return self

    def holds(self, value: int | None) -> bool:
        """Tell whether a value lies in the range; a layer without the quantity never does."""
        return (
            value is not None
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
        )


def _exact(value: Any) -> Any:
    """Let a plain number stand for the range that holds just it."""
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[Range, BeforeValidator(_exact, json_schema_input_type=int | Range)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    start, end = value
    if start > end:
        message = f"the depth range starts at {start}, after its end {end}"
        raise mistake(message, hint=f"write `[{end}, {start}]`")
    return value


class Match(Section):
    """Conditions on a layer or composite site, and on the parameters of it a rule claims."""

    shorthand: ClassVar[str | None] = "layer"
    expected: ClassVar[str] = "a layer's name (a regular expression) or a map of conditions"

    layer: LayerRegex | None = Field(
        None,
        description="Regular expression for the whole canonical layer name, e.g. 'blocks\\.\\d+\\.spatial'.",
    )
    kind: SiteKind | None = Field(
        None, description="Kind of the layer or composite site, told from its structure."
    )
    class_: Annotated[str | None, Field(min_length=1)] = Field(
        None, alias="class", description="Class name of the layer or of one of its bases, e.g. Conv2d."
    )
    depth: Annotated[tuple[Fraction, Fraction], FromList, AfterValidator(_ordered)] | None = Field(
        None, description="Range of the depth fraction among the layers of that kind, in execution order."
    )
    kernel_size: Size | None = Field(None, description="Kernel size (the largest side).")
    in_channels: Size | None = Field(None, description="Input channels or features.")
    out_channels: Size | None = Field(None, description="Output channels or features.")
    stride: Size | None = Field(None, description="Stride (the largest side).")
    groups: Size | None = Field(None, description="Convolution groups.")
    param: Regex | None = Field(
        None,
        description="Regular expression for the parameter's own name below its site; unless said, `weight`, "
        "and of a composite site everything the initializer fills.",
    )


def _as_layer(value: Any) -> Any:
    """Let a plain string stand for a condition on the layer's name."""
    return {"layer": value} if isinstance(value, str) else value


MatchField = Annotated[Match, BeforeValidator(_as_layer, json_schema_input_type=str | Match)]
