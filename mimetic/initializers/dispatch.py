"""From a rule and a layer to the draw that carries it out."""

from functools import singledispatch

from mimetic.covariance.sources import NO_HARVESTS, Harvests
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.default import default
from mimetic.initializers.draw import Draw
from mimetic.initializers.gaussian import gaussian
from mimetic.initializers.keep import keep
from mimetic.initializers.rainbow import rainbow
from mimetic.initializers.transplant import transplant
from mimetic.initializers.univariate import univariate
from mimetic.recipe.base import Spec
from mimetic.recipe.initializer import Default, Keep
from mimetic.recipe.measured import FromNetwork
from mimetic.recipe.rainbow import Rainbow
from mimetic.recipe.rule import Rule
from mimetic.recipe.transplant import WeightSelection, WeightTiling


def draw(rule: Rule, site: Site, names: tuple[str, ...], harvests: Harvests = NO_HARVESTS) -> Draw:
    """Return the draw by which a rule fills the parameters it claims of one layer; samples nothing.

    Args:
        rule: The rule.
        site: The layer.
        names: Local names of the claimed parameters.
        harvests: What trained networks and data gave, or will give, by `harvest_key`.

    Raises:
        UserError: If the rule's initializer cannot fill them.
    """
    _check_kind(rule, site)
    if rule.covariance is not None:
        return gaussian(rule, site, names, harvests)
    if isinstance(rule.init, FromNetwork):
        return from_network(rule.init, site, names, harvests)
    if rule.init is not None:
        return named(rule.init, site, names)
    return keep()


def fills(rule: Rule, site: Site) -> frozenset[str]:
    """Return the local names of the parameters of a composite site that a rule begins.

    They are those of the slots its initializer makes; of a rule that only freezes, or keeps, all.
    """
    if site.structure is None:
        return frozenset(parameter.local for parameter in site.parameters)
    wanted = None if rule.init is None else made(rule.init)
    return frozenset(slot.parameter for slot in site.structure.slots if wanted is None or slot.name in wanted)


@singledispatch
def made(spec: Spec) -> frozenset[str] | None:  # noqa: ARG001 - its registered kin use it
    """Return the names of the slots an initializer makes; None for all, as one that fills layers."""
    return None


@singledispatch
def named(spec: Spec, site: Site, names: tuple[str, ...]) -> Draw:
    """Return the draw of a named initializer: by its law, unless it registers a draw of its own.

    Initializers that fill several parameters together join by `named.register(TheirSpec)`, those of one
    tensor by `laws.law.register(TheirSpec)`.
    """
    return univariate(spec, site, names)


@named.register
def _(spec: Keep, site: Site, names: tuple[str, ...]) -> Draw:  # noqa: ARG001
    return keep()


@named.register
def _(spec: Default, site: Site, names: tuple[str, ...]) -> Draw:  # noqa: ARG001
    return default(site, names)


@singledispatch
def from_network(spec: FromNetwork, site: Site, names: tuple[str, ...], harvests: Harvests) -> Draw:  # noqa: ARG001
    """Return the draw of an initializer that begins from a trained network.

    Others join by `from_network.register(TheirSpec)`; the network lies in `harvests`, see
    `covariance.Network`.
    """
    message = f"{site.layer}: the init `{spec.type_name()}` is registered but nothing carries it out; "
    raise UserError(message + "register a function with `initializers.dispatch.from_network.register`")


@from_network.register
def _(spec: Rainbow, site: Site, names: tuple[str, ...], harvests: Harvests) -> Draw:
    return rainbow(spec, site, names, harvests)


@from_network.register
def _(spec: WeightSelection | WeightTiling, site: Site, names: tuple[str, ...], harvests: Harvests) -> Draw:
    return transplant(spec, site, names, harvests)


def _check_kind(rule: Rule, site: Site) -> None:
    """Refuse an initializer of layers for a composite site, and the reverse."""
    if rule.covariance is not None and site.structure is not None:
        message = f"{site.layer}: a covariance is one of a layer's filters, and this is a site of several; "
        raise UserError(message + "match its layers by name or by their own kind")
    if rule.init is None or isinstance(rule.init, Keep) or rule.init.acts_on == rule.acts_on:
        return
    name = rule.init.type_name()
    if rule.init.acts_on is None:
        message = f"{site.layer}: `{name}` fills one tensor at a time, and this is a site of several; "
        raise UserError(message + "match its layers by name or by their own kind")
    message = f"{site.layer}: `{name}` begins sites of kind `{rule.init.acts_on}`, and this is "
    raise UserError(message + f"`{site.kind}`; leave `kind` out or name that kind")
