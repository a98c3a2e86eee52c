"""From a rule and a site to the initializer that carries the rule out."""

from mimetic.config.registry import implementation
from mimetic.covariance.context import Context
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.initializers.config import Keep
from mimetic.initializers.gaussian import gaussian
from mimetic.initializers.resolved import InitFunction, ResolvedInit
from mimetic.initializers.storage import resolve_stored
from mimetic.recipe.rule import Rule


def resolve_init(rule: Rule, site: Site, context: Context) -> ResolvedInit:
    """Return the initializer by which a rule fills the parameters it claims of one site; nothing is drawn.

    Args:
        rule: The rule. One that only freezes keeps the values.
        site: The layer or composite site.
        context: Local names of the claimed parameters, and harvests of trained networks and data.

    Raises:
        UserError: If the rule's initializer does not fit the site.
    """
    _check_kind(rule, site)
    covariance, scale = rule.covariance, rule.scale
    if covariance is not None:
        return resolve_stored(lambda *at: gaussian(covariance, scale, *at), site, context)
    spec = Keep() if rule.init is None else rule.init
    function: InitFunction = implementation(spec)
    if isinstance(spec, Keep):
        return function(spec, site, context)
    return resolve_stored(
        lambda *at: function(spec, *at), site, context, whole=spec.whole, per=getattr(spec, "per", None)
    )


def filled_parameters(rule: Rule, site: Site) -> frozenset[str]:
    """Return the local names of the parameters of a composite site that a rule fills.

    They are those of the slots its initializer fills; of a rule that only freezes, or keeps, all. So they
    are at a site that its initializer fills as well.
    """
    if site.structure is None or site.kind != rule.acts_on:
        return frozenset(parameter.local for parameter in site.parameters)
    wanted = None if rule.init is None else rule.init.filled_slots
    return frozenset(slot.parameter for slot in site.structure.slots if wanted is None or slot.name in wanted)


def _check_kind(rule: Rule, site: Site) -> None:
    """Refuse an initializer of layers for a composite site, and the reverse."""
    if rule.covariance is not None and site.structure is not None:
        raise UserError(
            f"{site.layer}: a covariance describes the filters of a layer, and this is a composite site; "
            "match its layers by name or by their own kind",
            code="MIM-P041",
        )
    if rule.init is None or isinstance(rule.init, Keep) or rule.init.acts_on == rule.acts_on:
        return
    name = rule.init.type_name()
    if rule.init.acts_on is None:
        raise UserError(
            f"{site.layer}: `{name}` fills one tensor at a time, and this is a composite site; match its "
            "layers by name or by their own kind",
            code="MIM-P042",
        )
    raise UserError(
        f"{site.layer}: `{name}` initializes sites of kind `{rule.init.acts_on}`, and this is `{site.kind}`; "
        "leave `kind` out or name that kind",
        code="MIM-P043",
    )
