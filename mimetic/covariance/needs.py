"""What the rules of an arm need before they can be carried out: trained networks, or data."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from mimetic.recipe.base import Spec
from mimetic.recipe.measured import Carried, FromNetwork, Measured, Patches
from mimetic.recipe.recipe import Arm
from mimetic.recipe.scale import Lsuv


def harvest_key(spec: Spec) -> str:
    """Return the name under which a rule's covariance finds its harvest: the section, word for word.

    What `patches` gives depends on the arm's own model and data beside the section: keep harvests of
    arms apart that differ in these.
    """
    return spec.model_dump_json(by_alias=True)


def harvests_needed(arm: Arm) -> dict[str, Spec]:
    """Return the sections of an arm's rules that need a trained network or data, by `harvest_key`.

    Files are not among them: they are read where a plan is made.
    """
    specs = (
        spec
        for rule in arm.init
        for part in (rule.covariance, rule.init, rule.scale)
        for spec in _within(part)
    )
    return {
        harvest_key(spec): spec for spec in specs if isinstance(spec, Measured | Patches | FromNetwork | Lsuv)
    }


def kinds_needed(arm: Arm, spec: Spec) -> frozenset[str] | None:
    """Return the kinds of layers that an arm's rules take from a harvest; None where it may be any.

    A network's large linear layers take minutes to measure: where only convolutions start from it, they
    need not be. Harvests of other kinds must be kept apart.
    """
    kinds: set[str] = set()
    for rule in arm.init:
        if rule.covariance is None or spec not in _within(rule.covariance):
            continue
        kind = rule.match.kind
        if isinstance(spec, Carried):
            kind = None if spec.layers != "depth" else kind if spec.kind is None else spec.kind
        if kind is None:
            return None
        kinds.add(kind)
    return frozenset(kinds)


def _within(value: object) -> Iterator[Spec]:
    """Yield the sections inside a value, itself included."""
    if isinstance(value, Spec):
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
