"""A rule: which layers, how they are initialized, and whether they stay frozen."""

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from mimetic.config.base import Name, Section, validation_error
from mimetic.config.registry import Component, Registered
from mimetic.covariance.config import CovarianceSource, NoScale, Scale, expand_gain
from mimetic.graph.config import COMPOSITE_KINDS, Declared, DeclaredAttention, DeclaredMlp, MatchField
from mimetic.initializers.config import Init, Keep


class Freeze(Section):
    """What stays at its initial value."""

    expected: ClassVar[str] = "true, false or a map such as `{params: true, statistics: true}`"

    params: bool | None = Field(
        True,
        description="The matched parameters: no gradient, no decay. False makes them trainable, also those "
        "that the model itself freezes; null leaves them as they are.",
    )
    statistics: bool = Field(False, description="The running statistics of a norm layer as well.")

    def __bool__(self) -> bool:
        return self.params is not None or self.statistics


def _as_freeze(value: Any) -> Any:
    return {"params": value, "statistics": False} if isinstance(value, bool) else value


class Rule(Section):
    """Match + (covariance + scale, or a named init) + freeze."""

    id: Name = Field(description="Name of the rule: rules merge, and are overridden, by it.")
    match: MatchField = Field(description="Conditions, or a plain string for the layer's name.")
    init: Annotated[Init, Registered("init")] | None = Field(None, description="A named initializer.")
    covariance: Annotated[CovarianceSource, Registered("covariance")] | None = Field(
        None, description="Draw the filters from a Gaussian with this covariance."
    )
    scale: Annotated[
        Scale,
        Registered("scale"),
        BeforeValidator(expand_gain, json_schema_input_type=float | Annotated[Scale, Registered("scale")]),
    ] = Field(default_factory=NoScale, description="Scale of the weights (with a covariance).")
    freeze: Annotated[Freeze, BeforeValidator(_as_freeze, json_schema_input_type=bool | Freeze)] = Field(
        default_factory=lambda: Freeze(params=None),
        validate_default=True,
        description="Whether the parameters stay frozen; as they are unless given.",
    )
    expect: int | None = Field(
        None, ge=1, description="Number of layers the rule must match; anything else is an error."
    )
    attention: DeclaredAttention | None = Field(
        None, description="The maps of an attention that is not recognized, below each matched layer."
    )
    mlp: DeclaredMlp | None = Field(
        None, description="The two layers of an MLP pair that is not recognized, below each matched layer."
    )

    @field_validator("attention", "mlp")
    @classmethod
    def _declares_one_kind(cls, value: Declared | None, info: ValidationInfo) -> Declared | None:
        match, name = info.data.get("match"), info.field_name
        if value is None:
            return value
        if match is not None and match.kind not in {None, name}:
            hint = "leave `kind` out: the rule matches the layer that contains the maps, by name or class"
            message = f"`{name}` declares a site of that kind, not of kind `{match.kind}`"
            raise validation_error(message, code="MIM-R081", hint=hint)
        if name == "mlp" and info.data.get("attention") is not None:
            message = "a rule declares one site, and this one also has `attention`"
            raise validation_error(message, code="MIM-R082", hint="write two rules")
        return value

    @property
    def declared(self) -> Declared | None:
        """Return the site the rule declares; None if it matches recognized ones."""
        return self.attention if self.mlp is None else self.mlp

    @property
    def writes(self) -> bool:
        """Return whether the rule writes values, rather than only freezing or keeping them."""
        return self.covariance is not None or not (self.init is None or isinstance(self.init, Keep))

    @property
    def acts_on(self) -> str | None:
        """Return the kind of the composite sites the rule matches, None if it matches layers."""
        if self.match.kind is not None:
            return self.match.kind if self.match.kind in COMPOSITE_KINDS else None
        if self.declared is not None:
            return "attention" if self.mlp is None else "mlp"
        return None if self.init is None else self.init.acts_on

    @field_validator("covariance")
    @classmethod
    def _init_or_covariance(cls, value: Component | None, info: ValidationInfo) -> Component | None:
        if value is not None and info.data.get("init") is not None:
            message = "a rule has either `init` or `covariance`, not both"
            raise validation_error(message, code="MIM-R083", hint="remove one of them")
        return value

    @field_validator("scale")
    @classmethod
    def _scale_needs_covariance(cls, value: Component, info: ValidationInfo) -> Component:
        if info.data.get("init") is not None:
            hint = "remove it; a named init has its own arguments"
            message = "`scale` belongs to a covariance, and this rule has an `init`"
            raise validation_error(message, code="MIM-R084", hint=hint)
        return value

    @field_validator("freeze")
    @classmethod
    def _does_something(cls, value: Freeze, info: ValidationInfo) -> Freeze:
        nothing = all(key in info.data and info.data[key] is None for key in ("init", "covariance"))
        if nothing and not value:
            hint = "add `init`, `covariance` or `freeze`"
            raise validation_error("the rule does nothing", code="MIM-R085", hint=hint)
        return value
