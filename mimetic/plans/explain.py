"""Why a parameter begins as it does: the verdict of every rule on it."""

from dataclasses import dataclass
from difflib import get_close_matches

from mimetic.errors import UserError
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.plans.declared import declared_sites
from mimetic.plans.matching import claims, views
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's verdict on one parameter: `reason` says why it does not apply, None that it wins."""

    rule: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A parameter, its site, and what each rule says of it."""

    site: Site
    parameter: Parameter
    verdicts: tuple[Verdict, ...]


def explain(arm: Arm, graph: Graph, name: str) -> tuple[Explanation, ...]:
    """Explain one parameter, or every parameter of a layer.

    Args:
        arm: The arm whose rules are asked.
        graph: The sites of the model.
        name: Canonical name of a parameter or of a layer.

    Raises:
        UserError: If the model has neither; near names are suggested.
    """
    found = tuple(_explained(arm.init, site, parameter, graph) for site, parameter in _asked(graph, name))
    if not found:
        sites = (*graph.sites, *graph.composites)
        names = list(dict.fromkeys(n for s in sites for n in (s.layer, *(p.name for p in s.parameters))))
        close = get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(f'`{n}`' for n in close)}?" if close else ""
        raise UserError(f"the model has no layer or parameter `{name}`{hint}")
    return found


def _asked(graph: Graph, name: str) -> list[tuple[Site, Parameter]]:
    """Return the parameters of that name, or of the layer or composite site of that name."""
    together = {p.name for site in graph.composites if site.layer == name for p in site.parameters}
    return [
        (site, parameter)
        for site in graph.sites
        for parameter in site.parameters
        if name in (parameter.name, *parameter.aliases, site.layer) or parameter.name in together
    ]


def _explained(rules: tuple[Rule, ...], site: Site, parameter: Parameter, graph: Graph) -> Explanation:
    """Ask every rule of a parameter, each through the site as which it would see it."""
    places = [(site, parameter)]
    places += [(s, p) for s in graph.composites for p in s.parameters if p.name == parameter.name]
    verdicts: list[Verdict] = []
    winner: str | None = None
    shown = places[0]
    for rule in rules:
        reason, place = _asking(rule, places, graph)
        if reason is None and winner is not None:
            reason = f"it matches, but `{winner}` stands before it"
        elif reason is None:
            winner, shown = rule.id, place
        verdicts.append(Verdict(rule.id, reason))
    return Explanation(shown[0], parameter, tuple(verdicts))


def _asking(
    rule: Rule, places: list[tuple[Site, Parameter]], graph: Graph
) -> tuple[str | None, tuple[Site, Parameter]]:
    """Return why a rule does not apply to a parameter, None if it does, and where it saw it."""
    given = places
    if rule.declared is not None:
        named = places[0][1].name
        own = declared_sites(rule, graph)
        places = [(site, p) for site in own for p in site.parameters if p.name == named]
    seen = [(site, parameter) for site, parameter in places if views(rule, site)]
    if not seen:
        return f"it is not part of a site of kind `{rule.acts_on}`", given[0]
    site, parameter = seen[0]
    reason = mismatch(rule.match, site)
    if reason is None and not claims(rule, site, parameter.local):
        spoken = "weight" if rule.match.param is None else rule.match.param
        what = f"`{spoken}`" if site.structure is None or rule.match.param is not None else "other parameters"
        reason = f"it speaks of {what}, not of `{parameter.local}`"
    return reason, (site, parameter)
