"""Explain a plan: every rule's verdict on one parameter, read from the plan's own matching."""

from dataclasses import dataclass

from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.graph.site import Parameter, Site
from mimetic.plans.matching import Matching, names_of


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The verdict of one rule on a parameter, for the reader.

    Attributes:
        rule: Id of the rule.
        reason: Why it does not apply; None for the rule that claims the parameter.
        alias: The other name of a tied tensor under which the rule matches.
    """

    rule: str
    reason: str | None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A parameter, the site through which its rule sees it, and the verdict of each rule."""

    site: Site
    parameter: Parameter
    verdicts: tuple[RuleVerdict, ...]


def explain(matching: Matching, name: str) -> tuple[Explanation, ...]:
    """Explain one parameter, or every parameter of a layer or composite site.

    Args:
        matching: That of the plan.
        name: Name of a parameter or of a layer; canonical, or an alias of tied weights.

    Raises:
        UserError: If the model has neither; suggests near names.
    """
    graph = matching.graph
    sites = (*graph.sites, *graph.composites, *(s for found in matching.declared.values() for s in found))
    names = [(p.name, s.layer, n) for s in sites for p in s.parameters for n in names_of(s, p)]
    wanted = {owner for owner, layer, (full, alias, _) in names if name in {full, alias, layer}}
    if not wanted:
        known = dict.fromkeys(n for _, layer, (full, alias, _) in names for n in (layer, full, alias))
        hint = did_you_mean(name, known, count=3) or "`mimetic plan` lists them"
        raise UserError(f"the model has no layer or parameter `{name}`; {hint}", code="MIM-P040")
    return tuple(_explained(matching, s, p) for s in graph.sites for p in s.parameters if p.name in wanted)


def _explained(matching: Matching, site: Site, parameter: Parameter) -> Explanation:
    """Put a parameter's verdicts into words."""
    owner = matching.owners.get(parameter.name)
    verdicts = []
    for index, rule in enumerate(matching.rules):
        verdict = matching.verdicts.get(parameter.name, {}).get(index)
        if verdict is None:
            found = RuleVerdict(rule.id, f"it is not part of a site of kind `{rule.acts_on}`")
        elif verdict.reason is not None:
            found = RuleVerdict(rule.id, verdict.reason)
        elif index != owner and owner is not None:
            found = RuleVerdict(rule.id, f"it matches, but rule `{matching.rules[owner].id}` comes first")
        else:
            found = RuleVerdict(rule.id, None, verdict.name if verdict.name != parameter.name else None)
        verdicts.append(found)
    return Explanation(matching.view(site, parameter)[0], parameter, tuple(verdicts))
