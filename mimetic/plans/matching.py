"""Decide which sites and parameters a rule applies to."""

from mimetic.config.patterns import fullmatch
from mimetic.graph.site import Site
from mimetic.plans.choose import fills
from mimetic.recipe.rule import Rule


def claims(rule: Rule, site: Site, local: str) -> bool:
    """Tell whether a rule that matches a site speaks of its parameter with this local name.

    Of a layer that is `weight` unless `param` says otherwise; of a composite site, what the rule's
    initializer fills, narrowed by `param`.
    """
    param = rule.match.param
    if site.structure is None:
        param = "weight" if param is None else param
    elif local not in fills(rule, site):
        return False
    return param is None or param == local or fullmatch(param, local) is not None


def views(rule: Rule, site: Site) -> bool:
    """Tell whether a rule speaks of such a site at all: of composite sites of its kind, or of layers."""
    return site.kind == rule.acts_on if site.structure is not None else rule.acts_on is None
