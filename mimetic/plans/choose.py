"""From a rule and a site to the initializer that carries it out."""

from mimetic.covariance.context import NO_HARVESTS, Harvests
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import FromNetwork, Keep
from mimetic.initializers.dispatch import from_network, made, named
from mimetic.initializers.draw import ResolvedInit
from mimetic.initializers.gaussian import gaussian
from mimetic.initializers.keep import keep
from mimetic.recipe.rule import Rule


def draw(rule: Rule, site: Site, names: tuple[str, ...], harvests: Harvests = NO_HARVESTS) -> ResolvedInit:
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
        return gaussian(rule.covariance, rule.scale, site, names, harvests)
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
