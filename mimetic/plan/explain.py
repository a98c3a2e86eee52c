"""Why a parameter begins as it does: the verdict of every rule on it."""

from dataclasses import dataclass
from difflib import get_close_matches

from mimetic.errors import UserError
from mimetic.graph import Graph, Parameter, Site
from mimetic.plan.matching import claims, mismatch
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
    found = tuple(
        Explanation(site, parameter, _verdicts(arm.init, site, parameter))
        for site in graph.sites
        for parameter in site.parameters
        if name in (parameter.name, *parameter.aliases, site.layer)
    )
    if not found:
        names = [n for s in graph.sites for n in (s.layer, *(p.name for p in s.parameters))]
        close = get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(f'`{n}`' for n in close)}?" if close else ""
        raise UserError(f"the model has no layer or parameter `{name}`{hint}")
    return found


def _verdicts(rules: tuple[Rule, ...], site: Site, parameter: Parameter) -> tuple[Verdict, ...]:
    verdicts: list[Verdict] = []
    winner: str | None = None
    for rule in rules:
        reason = mismatch(rule.match, site)
        if reason is None and not claims(rule.match, parameter.local):
            reason = f"it speaks of `{rule.match.param}`, not of `{parameter.local}`"
        if reason is None and winner is not None:
            reason = f"it matches, but `{winner}` stands before it"
        elif reason is None:
            winner = rule.id
        verdicts.append(Verdict(rule.id, reason))
    return tuple(verdicts)
