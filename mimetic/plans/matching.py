"""Match rules against sites: the first rule that matches a parameter, under any of its names, claims it.

This is the only implementation of "first match wins": `resolve` builds plans from a `Matching`, and
`explain` prints one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mimetic.config.patterns import fullmatch
from mimetic.errors import UserError
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.plans.choose import filled_parameters
from mimetic.plans.declared import declared_sites
from mimetic.recipe.rule import Rule


class Verdict(NamedTuple):
    """One rule's verdict on one parameter.

    Attributes:
        site: The site through which the rule sees the parameter.
        parameter: The parameter as part of that site.
        name: The name that was matched: the canonical one, or an alias of a tied tensor.
        reason: The first condition that fails; None where the rule matches.
    """

    site: Site
    parameter: Parameter
    name: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Matching:
    """Every rule's verdict on every parameter of a model.

    Attributes:
        rules: The rules, in order.
        graph: The sites of the model.
        verdicts: By parameter and index of the rule; missing where the rule acts on no site of the parameter.
        owners: By parameter, the index of the rule that claims it.
        winners: By index of a rule, the rules that claim what it matches.
        layers: By index of a rule, the layers of which it claims a parameter.
        declared: By index of a rule, the sites it declares.
        refused: By index of a rule, why its declaration contradicts the model.
        tied: By parameter with several names, which rules match each of its names.
        skipped: By index of a rule, the parameters that it matches and skips, because the model froze them.
        rewritten: Parameters that surgery froze: rules may initialize these.
    """

    rules: tuple[Rule, ...]
    graph: Graph
    verdicts: dict[str, dict[int, Verdict]] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    winners: dict[int, set[int]] = field(default_factory=dict)
    layers: dict[int, set[str]] = field(default_factory=dict)
    declared: dict[int, tuple[Site, ...]] = field(default_factory=dict)
    refused: dict[int, UserError] = field(default_factory=dict)
    tied: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    skipped: dict[int, dict[str, None]] = field(default_factory=dict)
    rewritten: Collection[str] = ()

    def owner(self, parameter: str) -> Rule | None:
        """Return the rule that claims a parameter; None where no rule matches it."""
        index = self.owners.get(parameter)
        return None if index is None else self.rules[index]

    def view(self, site: Site, parameter: Parameter) -> tuple[Site, Parameter]:
        """Return a layer's parameter as its owner sees it; as it is where no rule claims it."""
        index = self.owners.get(parameter.name)
        if index is None:
            return site, parameter
        verdict = self.verdicts[parameter.name][index]
        return verdict.site, verdict.parameter


def match_rules(rules: Sequence[Rule], graph: Graph, rewritten: Collection[str] = ()) -> Matching:
    """Give each parameter to the first rule that matches it, under any of its names.

    What a model froze itself has values of a meaning, such as sinusoids or a Fourier basis. A rule that would
    overwrite it without a word on `freeze` leaves it, except where surgery froze it (`rewritten`).
    """
    matching = Matching(tuple(rules), graph, rewritten=rewritten)
    # Rules on recognized sites see all of them; a rule that declares sites sees only its own.
    undeclared = [index for index, rule in enumerate(rules) if rule.declared is None]
    for site in (*graph.sites, *graph.composites):
        _match_site(matching, site, undeclared)
    for index, rule in enumerate(rules):
        if rule.declared is not None:
            try:
                matching.declared[index] = declared_sites(rule, graph)
            except UserError as error:
                matching.refused[index] = error
            for site in matching.declared.get(index, ()):
                _match_site(matching, site, [index])
    _match_also(matching)
    # The first rule wins each parameter; the others record who did.
    for name, verdicts in matching.verdicts.items():
        matched = [index for index, verdict in verdicts.items() if verdict.reason is None]
        if matched:
            owner = matching.owners[name] = min(matched)
            for index in matched:
                matching.winners.setdefault(index, set()).add(owner)
            if applies_to(rules[owner], verdicts[owner].site):
                matching.layers.setdefault(owner, set()).add(verdicts[owner].site.layer)
    return matching


def applies_to(rule: Rule, site: Site) -> bool:
    """Return whether a rule acts on such a site at all: on composite sites of its kind, or on layers."""
    return rule.acts_on is None if site.structure is None else site.kind == rule.acts_on


def names_of(site: Site, parameter: Parameter) -> list[tuple[str, str, str]]:
    """Return (name, layer, local name) of a parameter under its canonical name and each alias."""
    return [
        (parameter.name, site.layer, parameter.local),
        *((alias, *_named_as(site, parameter, alias)) for alias in parameter.aliases),
    ]


def _match_site(matching: Matching, site: Site, candidates: Sequence[int]) -> None:
    """Record the verdicts of the candidate rules on the parameters of a site."""
    indices = [index for index in candidates if applies_to(matching.rules[index], site)]
    failed = {index: mismatch(matching.rules[index].match, site) for index in indices}
    for parameter in site.parameters:
        for index in indices:
            rule, reason = matching.rules[index], failed[index]
            if reason is None:
                reason = _excluded(rule, site, parameter.local)
            verdict = Verdict(site, parameter, parameter.name, reason)
            if parameter.aliases:
                verdict = _match_aliases(matching, index, verdict)
            verdict = _unless_frozen(matching, index, verdict)
            verdicts = matching.verdicts.setdefault(parameter.name, {})
            known = verdicts.get(index)
            if known is None or (known.reason is not None and verdict.reason is None):
                verdicts[index] = verdict


def _match_also(matching: Matching) -> None:
    """Let rules that match a site claim the sites that their initializers fill as well."""
    matched = {i for verdicts in matching.verdicts.values() for i, v in verdicts.items() if v.reason is None}
    for index in sorted(matched):
        rule = matching.rules[index]
        kinds = () if rule.init is None else rule.init.also_fills
        for site in matching.graph.composites:
            for parameter in site.parameters if site.kind in kinds else ():
                verdict = Verdict(site, parameter, parameter.name, _excluded(rule, site, parameter.local))
                verdict = _unless_frozen(matching, index, verdict)
                matching.verdicts.setdefault(parameter.name, {})[index] = verdict


def _unless_frozen(matching: Matching, index: int, verdict: Verdict) -> Verdict:
    """Let a rule leave what the model froze, unless its `freeze` decides on it."""
    rule, parameter = matching.rules[index], verdict.parameter
    frozen = set(parameter.frozen).difference(matching.rewritten)
    if verdict.reason is not None or not rule.writes or rule.freeze.params is not None:
        return verdict
    if not frozen or not parameter.can_train:
        return verdict
    matching.skipped.setdefault(index, {})[parameter.name] = None
    return verdict._replace(reason="the model froze it, and the rule has no `freeze`")


def _match_aliases(matching: Matching, index: int, verdict: Verdict) -> Verdict:
    """Match a tied tensor under each of its names; return the verdict under the first that matches."""
    rule, site, parameter = matching.rules[index], verdict.site, verdict.parameter
    matched = [] if verdict.reason is not None else [parameter.name]
    for alias, layer, local in names_of(site, parameter)[1:]:
        if mismatch(rule.match, site, layer) is None and _excluded(rule, site, local) is None:
            matched.append(alias)
    for name in matched:
        matching.tied.setdefault(parameter.name, {}).setdefault(name, []).append(index)
    return Verdict(site, parameter, matched[0], None) if matched else verdict


def _excluded(rule: Rule, site: Site, local: str) -> str | None:
    """Return why a rule that matches a site leaves out its parameter of this local name.

    A rule claims the `weight` of a layer unless `param` selects others; of a composite site, it claims what
    its initializer fills, narrowed by `param`.
    """
    param = rule.match.param
    if site.structure is None:
        param = site.main if param is None else param
    elif local not in filled_parameters(rule, site):
        return f"its initializer does not fill `{local}`"
    if param is None or param == local or fullmatch(param, local) is not None:
        return None
    return f"the rule applies to `{param}`, not to `{local}`"


def _named_as(site: Site, parameter: Parameter, alias: str) -> tuple[str, str]:
    """Return the names that a tied tensor's site and the tensor itself have under an alias."""
    if parameter.name == site.layer:  # a table or stack that is one parameter among others of its layer
        return alias, parameter.local
    if site.structure is None:
        layer, _, local = alias.rpartition(".")
        return layer, local
    return alias.removesuffix(f".{parameter.local}"), parameter.local
