"""Rules × sites → plan. Every mistake is found here, before a tensor is touched.

First match wins, per parameter, top to bottom. A rule that matches nothing, a rule wholly shadowed by
earlier ones, an `expect` that fails, two rules on one tied tensor and an initializer that does not fit
its layer are errors, reported together.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from mimetic.collector import paused_collector
from mimetic.covariance.sources import NO_HARVESTS, Harvests
from mimetic.errors import UserError
from mimetic.graph import Graph, Parameter, Site
from mimetic.initializers import draw
from mimetic.plan.entry import Action, Entry, Rewritten
from mimetic.plan.matching import claims, mismatch
from mimetic.plan.plan import Plan
from mimetic.recipe.errors import Issue, Mark, RecipeError
from mimetic.recipe.match import Match
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule
from mimetic.streams import key

Where = Callable[[str, int], Mark | None]
"""`where("init", 2)`: the place of a value of the arm in the file it was written in."""

_SHOWN = 8


def resolve(
    arm: Arm,
    graph: Graph,
    *,
    seed: int,
    name: str = "main",
    where: Where | None = None,
    harvests: Harvests = NO_HARVESTS,
    rewrites: Sequence[Rewritten] = (),
) -> Plan:
    """Compile an arm's rules against the sites of a model.

    Args:
        arm: The arm, complete.
        graph: The sites of the model, on any device.
        seed: Seed of the run.
        name: Name of the arm, for messages.
        where: Looks up the place of a rule in its file.
        harvests: What trained networks and data gave, or will give, by `covariance.harvest_key`; a plan
            from prospective harvests can be shown, but not applied.
        rewrites: What surgery replaced in the model; the plan freezes what it froze.

    Returns:
        The plan. It is a pure function of the arguments and touches no tensor.

    Raises:
        RecipeError: With every mistake of the rules at once.
    """
    resolution = _Resolution(
        arm, graph, seed=seed, name=name, where=where, harvests=harvests, rewrites=rewrites
    )
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
        name: str,
        where: Where | None,
        harvests: Harvests,
        rewrites: Sequence[Rewritten],
    ) -> None:
        self.arm, self.graph, self.seed, self.name, self.where = arm, graph, seed, name, where
        self.harvests, self.rewrites = harvests, tuple(rewrites)
        self.frozen = {parameter for rewrite in rewrites for parameter in rewrite.frozen}
        self.issues: list[Issue] = []
        self.owner: dict[str, int] = {}  # parameter → index of the rule that claims it
        self.matched: list[dict[str, int]] = [{} for _ in arm.init]  # rule → parameter → claiming rule
        self.layers: list[set[str]] = [set() for _ in arm.init]
        self.actions: list[Action] = []
        self.drawn: dict[str, Action] = {}

    def claim(self) -> None:
        """Give each parameter to the first rule that matches it, under any of its names."""
        for site in self.graph.sites:
            fits = [mismatch(rule.match, site) is None for rule in self.arm.init]
            for parameter in site.parameters:
                candidates = [
                    i
                    for i, rule in enumerate(self.arm.init)
                    if fits[i] and claims(rule.match, parameter.local)
                ]
                if parameter.aliases:
                    candidates = self._with_aliases(site, parameter, candidates)
                for i in candidates:
                    self.matched[i][parameter.name] = candidates[0]
                if candidates:
                    self.owner[parameter.name] = candidates[0]
                    self.layers[candidates[0]].add(site.layer)

    def _with_aliases(self, site: Site, parameter: Parameter, own: list[int]) -> list[int]:
        firsts = {own[0]: parameter.name} if own else {}
        found = set(own)
        for alias in parameter.aliases:
            layer, _, local = alias.rpartition(".")
            fits = [
                i
                for i, rule in enumerate(self.arm.init)
                if mismatch(rule.match, site, layer) is None and claims(rule.match, local)
            ]
            found.update(fits)
            if fits:
                firsts.setdefault(fits[0], alias)
        if len({self._identity(i) for i in firsts}) > 1:
            one, other = sorted(firsts)[:2]
            self._issue(
                other,
                f"rule `{self.arm.init[other].id}` begins `{firsts[other]}` differently from rule "
                f"`{self.arm.init[one].id}`, but it is the same tensor as `{firsts[one]}`",
                "match one of the tied names only",
            )
        return sorted(found)

    def _identity(self, index: int) -> str:
        return self.arm.init[index].model_dump_json(exclude={"id", "match", "expect"})

    def draw(self) -> None:
        """Resolve each rule's initializer for each layer it claims something of."""
        refusals: dict[int, list[str]] = {}
        for site in self.graph.sites:
            claimed: dict[int, list[Parameter]] = {}
            for parameter in site.parameters:
                if parameter.name in self.owner:
                    claimed.setdefault(self.owner[parameter.name], []).append(parameter)
            for index, parameters in claimed.items():
                try:
                    names = tuple(p.local for p in parameters)
                    drawn = draw(self.arm.init[index], site, names, self.harvests)
                except UserError as error:
                    refusals.setdefault(index, []).append(str(error))
                    continue
                action = Action(site.layer, {p.local: p.name for p in parameters}, drawn)
                self.actions.append(action)
                self.drawn.update(dict.fromkeys(action.parameters.values(), action))
        for index, messages in refusals.items():
            more = f" (and {len(messages) - 1} more of its layers)" if len(messages) > 1 else ""
            self._issue(index, messages[0] + more, None)

    def check(self) -> None:
        """Find rules that are dead, shadowed or claim another number of layers than expected."""
        for index, rule in enumerate(self.arm.init):
            if not self.matched[index]:
                self._issue(index, *self._dead(rule))
            elif not self.layers[index]:
                winners = sorted(set(self.matched[index].values()))
                names = ", ".join(f"`{self.arm.init[i].id}`" for i in winners)
                self._issue(
                    index,
                    f"rule `{rule.id}` never applies: everything it matches is claimed by {names} before it",
                    "move it further up or narrow the earlier rule: the first match wins",
                )
            elif rule.expect is not None and rule.expect != len(self.layers[index]):
                count, shown = len(self.layers[index]), _listing(sorted(self.layers[index]))
                message = f"rule `{rule.id}` expects {rule.expect} layers and claims {count}: {shown}"
                self._issue(index, message, None)
        self._check_unmatched()

    def _check_unmatched(self) -> None:
        if self.arm.unmatched != "error":
            return
        left = [p.name for s in self.graph.sites for p in s.parameters if p.name not in self.owner]
        if left:
            mark = self.where("unmatched", -1) if self.where is not None else None
            self.issues.append(
                Issue(
                    f"no rule matches {len(left)} parameters: {_listing(left)}",
                    ("arms", self.name, "unmatched"),
                    mark,
                    "add rules for them (`init: keep` leaves a parameter as it is), or set `unmatched: keep`",
                )
            )

    def _dead(self, rule: Rule) -> tuple[str, str | None]:
        """Say why a rule matches nothing: name, then the other conditions, then the parameter."""
        message = f"rule `{rule.id}` matches nothing in this model"
        names = [site.layer for site in self.graph.sites]
        pattern = rule.match.layer
        named = rule.match.model_copy(update={"layer": None})
        if pattern is not None:
            by_name = Match(layer=pattern)
            sites = [s for s in self.graph.sites if mismatch(by_name, s) is None]
            if not sites:
                return f"{message}: no layer is named like `{pattern}`", self._similar(pattern, names)
        else:
            sites = list(self.graph.sites)
        reasons = [(s, mismatch(named, s)) for s in sites]
        fitting = [s for s, reason in reasons if reason is None]
        if fitting:
            have = sorted({p.local for s in fitting for p in s.parameters})
            return (
                f"{message}: {len(fitting)} layers fit, but none has a parameter `{rule.match.param}`",
                f"their parameters are {_listing(have)}",
            )
        if pattern is None:
            kinds = sorted({s.kind for s in self.graph.sites})
            return message, f"the model has layers of kind {_listing(kinds)}"
        site, reason = reasons[0]
        return f"{message}: {len(sites)} layers have such a name, but for `{site.layer}`, {reason}", None

    def _similar(self, pattern: str, names: list[str]) -> str | None:
        plain = pattern.replace("\\.", ".").replace("\\d+", "0")
        everything = [*names, *self.graph.layers]
        inside = [n for n in names if n.startswith(f"{plain}.")]
        if inside:
            return f"the whole name must match; below `{plain}` there are {_listing(inside)}"
        close = get_close_matches(plain, everything, n=3, cutoff=0.5)
        if close:
            return f"did you mean {' or '.join(f'`{name}`' for name in dict.fromkeys(close))}?"
        return f"layers are named {_listing(names)}" if names else "the model has no parameters"

    def _issue(self, index: int, message: str, hint: str | None) -> None:
        mark = self.where("init", index) if self.where is not None else None
        path = ("arms", self.name, "init", self.arm.init[index].id)
        self.issues.append(Issue(message, path, mark, hint))

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
            traced=self.graph.traced,
            note=self.graph.note,
        )

    def _entry(self, site: Site, parameter: Parameter) -> Entry:
        index = self.owner.get(parameter.name)
        rule = None if index is None else self.arm.init[index]
        drawn = self.drawn[parameter.name].draw if parameter.name in self.drawn else None
        mark = self.where("init", index) if self.where is not None and index is not None else None
        return Entry(
            parameter=parameter.name,
            layer=site.layer,
            kind=site.kind,
            shape=parameter.shape,
            dtype=parameter.dtype,
            key=key(self.seed, parameter.name),
            aliases=parameter.aliases,
            rule=None if rule is None else rule.id,
            where=None if mark is None else f"{mark.file}:{mark.line}",
            initializer="keep" if drawn is None else drawn.name,
            arguments={} if drawn is None else drawn.arguments,
            moments=None if drawn is None else drawn.moments.get(parameter.local),
            frozen=parameter.name in self.frozen or (rule is not None and rule.freeze.params),
            notes=() if drawn is None else drawn.notes,
        )


def _listing(names: Sequence[str]) -> str:
    """List names, at most a handful."""
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} … ({len(names)} in all)"
