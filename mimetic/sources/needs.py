"""What the rules of an arm need before they can be carried out: trained networks, or data."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from mimetic.config.registry import Component
from mimetic.covariance.config import Transferred
from mimetic.covariance.harvest import harvest_key
from mimetic.recipe.recipe import Arm


def harvests_needed(arm: Arm) -> dict[str, Component]:
    """Return the sections of an arm's rules that need a trained network or data, by `harvest_key`.

    Files are not among them: they are read where a plan is made.
    """
    specs = (
        spec
        for rule in arm.init
        for part in (rule.covariance, rule.init, rule.scale)
        for spec in _within(part)
    )
    return {harvest_key(spec): spec for spec in specs if spec.takes is not None}


def kinds_needed(arm: Arm, spec: Component) -> frozenset[str] | None:
    """Return the kinds of layers that an arm's rules take from a harvest; None where it may be any.

    A network's large linear layers take minutes to measure: where only convolutions start from it, they
    need not be. Harvests of other kinds must be kept apart.
    """
    kinds: set[str] = set()
    for rule in arm.init:
        if rule.covariance is None or spec not in _within(rule.covariance):
            continue
        kind = rule.match.kind
        if isinstance(spec, Transferred):
            kind = None if spec.layers != "depth" else kind if spec.kind is None else spec.kind
        if kind is None:
            return None
        kinds.add(kind)
    return frozenset(kinds)


def _within(value: object) -> Iterator[Component]:
    """Yield the sections inside a value, itself included."""
    if isinstance(value, Component):
        yield value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _within(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _within(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _within(inner)
