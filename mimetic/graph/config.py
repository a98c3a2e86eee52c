"""Sections of `match`: conditions on a layer, all of which must be met; and declared composite sites."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mimetic.config.base import Count, Fraction, FromList, Section, validation_error
from mimetic.config.patterns import LayerRegex, Regex

CompositeKind = Literal["attention", "position", "ssm", "mlp"]
"""Kinds of composite sites; see `mimetic.graph.structure`."""

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


class Range(Section):
    """A range of integers, ends included; a missing end is open."""

    expected: ClassVar[str] = "a whole number or a range such as `{min: 3, max: 9}`"

    min: int | None = Field(None, description="Smallest value that matches.")
    max: int | None = Field(None, description="Largest value that matches.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise validation_error("the range has no end", code="MIM-G020", hint="give `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise validation_error(f"`min` {self.min} is larger than `max` {self.max}", code="MIM-G021")
        return self

    def contains(self, value: int | None) -> bool:
        """Return whether a value is in the range; None, of a layer without the quantity, is not."""
        return (
            value is not None
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
        )


def _exact(value: object) -> object:
    """Convert a plain number to the range of only this number."""
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[Range, BeforeValidator(_exact, json_schema_input_type=int | Range)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    start, end = value
    if start > end:
        raise validation_error(
            f"the depth range starts at {start}, after its end {end}",
            code="MIM-G022",
            hint=f"write `[{end}, {start}]`",
        )
    return value


class Match(Section):
    """Conditions on a layer or composite site, and on those of its parameters that a rule claims."""

    shorthand: ClassVar[str | None] = "layer"
    synonyms: ClassVar[Mapping[str, str]] = {"name": "layer", "regex": "layer", "type": "class"}
    expected: ClassVar[str] = "a layer's name (a regular expression) or a map of conditions"

    layer: LayerRegex | None = Field(
        None,
        description="Regular expression for the whole canonical layer name, e.g. 'blocks\\.\\d+\\.spatial'.",
    )
    kind: SiteKind | None = Field(None, description="Kind of the layer or composite site.")
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
        description="Regular expression for the parameter's name below its site; default: `weight`, or for a "
        "composite site everything that the initializer fills.",
    )


def _as_layer(value: object) -> object:
    """Convert a plain string to a condition on the layer's name."""
    return {"layer": value} if isinstance(value, str) else value


MatchField = Annotated[Match, BeforeValidator(_as_layer, json_schema_input_type=str | Match)]


LayerPath = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s.][^\s]*$")]


class DeclaredAttention(Section):
    """The four maps of an attention: names of linear layers below the matched layer, and the heads."""

    expected: ClassVar[str] = "a map such as `{q: to_q, k: to_k, v: to_v, out: to_out, heads: 3}`"

    qkv: LayerPath | None = Field(
        None, description="One layer with outputs for all queries, then all keys, then all values."
    )
    q: LayerPath | None = Field(None, description="Layer of the queries.")
    kv: LayerPath | None = Field(
        None, description="One layer with outputs for all keys, then all values; in addition to `q`."
    )
    k: LayerPath | None = Field(None, description="Layer of the keys.")
    v: LayerPath | None = Field(None, description="Layer of the values.")
    out: LayerPath = Field(description="Output projection.")
    heads: Count | None = Field(
        None, description="Query heads; default: as declared by each matched layer (`num_heads`, …)."
    )
    kv_heads: Count | None = Field(
        None, description="Key and value heads of grouped queries; default: `heads`."
    )

    @property
    def inner(self) -> tuple[tuple[LayerPath, tuple[str, ...]], ...]:
        """Return the layers before the heads, each with the names of its maps, in order."""
        keys = ("qkv", "q", "kv", "k", "v")
        return tuple((getattr(self, key), tuple(key)) for key in keys if getattr(self, key) is not None)

    @property
    def layers(self) -> tuple[LayerPath, ...]:
        """Return the names of all layers."""
        return (*(path for path, _ in self.inner), self.out)

    @model_validator(mode="after")
    def _each_map_once(self) -> "DeclaredAttention":
        named = {key: getattr(self, key) for key in ("qkv", "q", "kv", "k", "v", "out")}
        given = [key for key, path in named.items() if path is not None]
        for place, key in enumerate(given):
            whole = next((other for other in given[:place] if set(key) <= set(other)), None)
            if whole is not None:
                what = "all three" if whole == "qkv" else "both"
                raise validation_error(
                    f"`{whole}` is one layer for {what}, and `{key}` another", code="MIM-G023", at=(key,)
                )
            same = next((other for other in given[:place] if named[other] == named[key]), None)
            if same is not None:
                raise validation_error(f"`{key}` is the same layer as `{same}`", code="MIM-G024", at=(key,))
        missing = next((key for key in "qkv" if key not in "".join(given)), None)
        if missing is not None:
            hint = "give `q`, `k` and `v`; or `q` and one `kv`; or one `qkv`"
            raise validation_error(f"the attention has no `{missing}`", code="MIM-G025", hint=hint)
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads:
            raise validation_error(
                f"{self.heads} heads cannot share {self.kv_heads} of keys and values",
                code="MIM-G026",
                at=("kv_heads",),
            )
        return self


class DeclaredMlp(Section):
    """The two layers of an MLP pair: names of linear layers below the matched layer."""

    expected: ClassVar[str] = "a map such as `{fc1: widen, fc2: narrow}`"

    fc1: LayerPath = Field(description="The first layer.")
    fc2: LayerPath = Field(description="The second layer, which maps back to the input width of the first.")

    @property
    def layers(self) -> tuple[LayerPath, ...]:
        """Return the names of both layers."""
        return self.fc1, self.fc2

    @model_validator(mode="after")
    def _two(self) -> "DeclaredMlp":
        if self.fc1 == self.fc2:
            raise validation_error(
                "a pair is two layers, and both are the same", code="MIM-G027", at=("fc2",)
            )
        return self


Declared = DeclaredAttention | DeclaredMlp
"""Composite sites that a rule may declare."""
