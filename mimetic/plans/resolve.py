"""Rules × sites → plan. Every mistake is found here, before a tensor is touched.

First match wins, per parameter, top to bottom. A rule that matches nothing, a rule wholly shadowed by
earlier ones, an `expect` that fails, two rules on one tied tensor and an initializer that does not fit
its layer are errors, reported together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mimetic.collector import paused_collector
from mimetic.config.address import MAIN, ConfigPath
from mimetic.config.errors import Issue, RecipeError
from mimetic.covariance.context import NO_HARVESTS, Harvests
from mimetic.errors import UserError
from mimetic.graph.matching import mismatch
from mimetic.graph.site import Graph, Parameter, Site
from mimetic.plans.choose import draw, fills
from mimetic.plans.dead import dead, listing
from mimetic.plans.declared import declared_sites
from mimetic.plans.entry import Action, Entry
from mimetic.plans.matching import claims, views
from mimetic.plans.plan import Plan
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule
from mimetic.streams import key
from mimetic.surgery.replacement import Rewritten


def resolve(
    arm: Arm,
    graph: Graph,
    *,
    seed: int,
    at: ConfigPath = MAIN,
    harvests: Harvests = NO_HARVESTS,
    rewrites: Sequence[Rewritten] = (),
) -> Plan:
    """Compile an arm's rules against the sites of a model.

    Args:
        arm: The arm, complete.
        graph: The sites of the model, on any device.
        seed: Seed of the run.
        at: Where the arm stands in its recipe, for messages.
        harvests: What trained networks and data gave, or will give, by `covariance.harvest_key`; a plan
            from prospective harvests can be shown, but not applied.
        rewrites: What surgery replaced in the model; the plan freezes what it froze.

    Returns:
        The plan. It is a pure function of the arguments and touches no tensor.

    Raises:
        RecipeError: With every mistake of the rules at once.
    """
    resolution = _Resolution(arm, graph, seed=seed, at=at, harvests=harvests, rewrites=rewrites)
    with paused_collector():
        resolution.claim()
        resolution.draw()
        resolution.check()
        if resolution.issues:
            raise RecipeError(resolution.issues)
        return resolution.plan()


class _Resolution:
    """The state of one resolution: what each rule could match, and what it claims."""

    def __init__(
        self,
        arm: Arm,
        graph: Graph,
        *,
        seed: int,
        at: ConfigPath,
        harvests: Harvests,
        rewrites: Sequence[Rewritten],
    ) -> None:
        self.arm, self.graph, self.seed, self.at = arm, graph, seed, at
        self.harvests, self.rewrites = harvests, tuple(rewrites)
        self.frozen = {parameter for rewrite in rewrites for parameter in rewrite.frozen}
        self.issues: list[Issue] = []
        self.seen: dict[str, dict[int, _View]] = {}  # parameter → rule → the site it is seen through
        self.named: dict[str, dict[str, list[int]]] = {}  # tied parameter → each of its names → rules
        self.owner: dict[str, int] = {}  # parameter → index of the rule that claims it
        self.matched: list[dict[str, int]] = [{} for _ in arm.init]  # rule → parameter → claiming rule
        self.layers: list[set[str]] = [set() for _ in arm.init]
        self.declared: list[tuple[Site, ...]] = [() for _ in arm.init]
        self.refused: set[int] = set()  # rules whose declaration contradicts the model
        self.actions: list[Action] = []
        self.drawn: dict[str, Action] = {}

    def claim(self) -> None:
        """Give each parameter to the first rule that matches it, under any of its names."""
        for site in (*self.graph.sites, *self.graph.composites):
            self._see(site, [i for i, rule in enumerate(self.arm.init) if rule.declared is None])
        for i, rule in enumerate(self.arm.init):
            if rule.declared is not None:
                self._declare(i, rule)
        for site in self.graph.sites:
            for parameter in site.parameters:
                candidates = sorted(self.seen.get(parameter.name, ()))
                if not candidates:
                    continue
                if parameter.aliases:
                    self._check_tied(parameter)
                for i in candidates:
                    self.matched[i][parameter.name] = candidates[0]
                self.owner[parameter.name] = candidates[0]
                self.layers[candidates[0]].add(self.seen[parameter.name][candidates[0]].site.layer)

    def _see(self, site: Site, rules: list[int]) -> None:
        """Note which of the rules speak of a site's parameters, under any of their names."""
        rules = [i for i in rules if views(self.arm.init[i], site)]
        fits = [i for i in rules if mismatch(self.arm.init[i].match, site) is None]
        for parameter in site.parameters:
            found = {parameter.name: fits}
            for alias in parameter.aliases if rules else ():
                layer, local = _as_named(site, parameter, alias)
                found[alias] = [
                    i
                    for i in rules
                    if mismatch(self.arm.init[i].match, site, layer) is None
                    and claims(self.arm.init[i], site, local)
                ]
            found[parameter.name] = [i for i in fits if claims(self.arm.init[i], site, parameter.local)]
            for name, indices in found.items():
                if parameter.aliases:
                    self.named.setdefault(parameter.name, {}).setdefault(name, []).extend(indices)
                for i in indices:
                    self.seen.setdefault(parameter.name, {}).setdefault(i, _View(site, parameter))

    def _declare(self, index: int, rule: Rule) -> None:
        try:
            self.declared[index] = declared_sites(rule, self.graph)
        except UserError as error:
            self.refused.add(index)
            self._issue(index, str(error), None)
        for site in self.declared[index]:
            self._see(site, [index])

    def _check_tied(self, parameter: Parameter) -> None:
        """Refuse rules that begin a tied tensor differently under its several names."""
        firsts: dict[int, str] = {}
        for name, indices in self.named[parameter.name].items():
            if indices:
                firsts.setdefault(min(indices), name)
        if len({self._identity(i) for i in firsts}) > 1:
            one, other = sorted(firsts)[:2]
            self._issue(
                other,
                f"rule `{self.arm.init[other].id}` begins `{firsts[other]}` differently from rule "
                f"`{self.arm.init[one].id}`, but it is the same tensor as `{firsts[one]}`",
                "match one of the tied names only",
            )

    def _identity(self, index: int) -> str:
        return self.arm.init[index].model_dump_json(exclude={"id", "match", "expect"})

    def draw(self) -> None:
        """Resolve each rule's initializer for each site it claims something of."""
        refusals: dict[int, list[str]] = {}
        for index, site, parameters in self._claimed():
            try:
                names = tuple(p.local for p in parameters)
                drawn = draw(self.arm.init[index], site, names, self.harvests)
            except UserError as error:
                refusals.setdefault(index, []).append(str(error))
                continue
            layer = site.layer if site.layer in self.graph.classes else site.layer.rpartition(".")[0]
            action = Action(site.layer, layer, {p.local: p.name for p in parameters}, drawn)
            self.actions.append(action)
            self.drawn.update(dict.fromkeys(action.parameters.values(), action))
        for index, messages in refusals.items():
            more = f" (and {len(messages) - 1} more of its layers)" if len(messages) > 1 else ""
            self._issue(index, messages[0] + more, None)

    def _claimed(self) -> Iterator[tuple[int, Site, list[Parameter]]]:
        """Yield each rule's sites with what it claims of them, layers first, in order of execution."""
        together: dict[tuple[int, int], tuple[int, Site, list[Parameter]]] = {}
        for site in self.graph.sites:
            for parameter in site.parameters:
                index = self.owner.get(parameter.name)
                if index is not None:
                    view = self.seen[parameter.name][index]
                    _, _, claimed = together.setdefault((index, id(view.site)), (index, view.site, []))
                    claimed.append(view.parameter)
        yield from together.values()

    def check(self) -> None:
        """Find rules that are dead, shadowed or claim another number of layers than expected."""
        for index, rule in enumerate(self.arm.init):
            if index in self.refused:
                continue
            if not self.matched[index]:
                self._issue(index, *dead(rule, self.graph, self.declared[index]))
            elif not self.layers[index]:
                winners = sorted(set(self.matched[index].values()))
                names = ", ".join(f"`{self.arm.init[i].id}`" for i in winners)
                self._issue(
                    index,
                    f"rule `{rule.id}` never applies: everything it matches is claimed by {names} before it",
                    "move it further up or narrow the earlier rule: the first match wins",
                )
            elif rule.expect is not None and rule.expect != len(self.layers[index]):
                count, shown = len(self.layers[index]), listing(sorted(self.layers[index]))
                message = f"rule `{rule.id}` expects {rule.expect} layers and claims {count}: {shown}"
                self._issue(index, message, None)
        self._check_unmatched()

    def _check_unmatched(self) -> None:
        if self.arm.unmatched != "error":
            return
        left = [p.name for s in self.graph.sites for p in s.parameters if p.name not in self.owner]
        if left:
            message = f"no rule matches {len(left)} parameters: {listing(left)}"
            hint = "add rules for them (`init: keep` leaves a parameter as it is), or set `unmatched: keep`"
            self.issues.append(self.at.issue(message, "unmatched", hint=hint))

    def _issue(self, index: int, message: str, hint: str | None) -> None:
        self.issues.append(self.at.issue(message, "init", self.arm.init[index].id, hint=hint))

    def plan(self) -> Plan:
        """Return the plan; only called where there are no issues."""
        entries = tuple(self._entry(s, p) for s in self.graph.sites for p in s.parameters)
        held = tuple(
            site.layer
            for index, rule in enumerate(self.arm.init)
            if rule.freeze.statistics
            for site in self.graph.sites
            if site.layer in self.layers[index]
        )
        return Plan(
            seed=self.seed,
            entries=entries,
            actions=tuple(self.actions),
            held=held,
            rewrites=self.rewrites,
            sites=(*self.graph.composites, *(site for sites in self.declared for site in sites)),
            traced=self.graph.traced,
            note=self.graph.note,
        )

    def _entry(self, site: Site, parameter: Parameter) -> Entry:
        index = self.owner.get(parameter.name)
        rule = None if index is None else self.arm.init[index]
        view = _View(site, parameter) if index is None else self.seen[parameter.name][index]
        drawn = self.drawn[parameter.name].draw if parameter.name in self.drawn else None
        mark = None if rule is None else self.at.mark("init", rule.id)
        stream = view.site.layer if view.site.structure is not None else parameter.name
        return Entry(
            parameter=parameter.name,
            layer=site.layer,
            kind=view.site.kind,
            shape=parameter.shape,
            dtype=parameter.dtype,
            key=key(self.seed, stream),
            aliases=parameter.aliases,
            rule=None if rule is None else rule.id,
            where=None if mark is None else f"{mark.file}:{mark.line}",
            initializer="keep" if drawn is None else drawn.name,
            arguments={} if drawn is None else drawn.arguments,
            moments=None if drawn is None else drawn.moments.get(view.parameter.local),
            frozen=parameter.name in self.frozen or (rule is not None and rule.freeze.params),
            notes=() if drawn is None or index is None else (*self._told(index, view), *drawn.notes),
        )

    def _told(self, index: int, view: "_View") -> tuple[str, ...]:
        """Return what a composite site is, and what of it the rule does not begin."""
        structure = view.site.structure
        if structure is None:
            return ()
        said = structure.said(view.parameter.local)
        return (*(() if said is None else (said,)), *structure.notes, *self._missing(index, view.site))

    def _missing(self, index: int, site: Site) -> Iterator[str]:
        """Say which parameters that belong to a rule's draw begin otherwise."""
        wanted = fills(self.arm.init[index], site)
        for parameter in site.parameters:
            owner = self.owner.get(parameter.name)
            if parameter.local in wanted and owner != index:
                how = "is left as it is" if owner is None else f"begins by rule `{self.arm.init[owner].id}`"
                yield f"`{parameter.local}` belongs to this {site.kind} but {how}"


class _View(NamedTuple):
    """A parameter as part of the site through which a rule sees it."""

    site: Site
    parameter: Parameter


def _as_named(site: Site, parameter: Parameter, alias: str) -> tuple[str, str]:
    """Return the names a tied tensor's site and the tensor itself would have under an alias."""
    if site.structure is None:
        layer, _, local = alias.rpartition(".")
        return layer, local
    if parameter.name == site.layer:  # a table that is a parameter among others
        return alias, parameter.local
    return alias.removesuffix(f".{parameter.local}"), parameter.local
