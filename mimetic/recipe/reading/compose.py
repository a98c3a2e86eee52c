"""Composition: from the layers of a recipe to arms and stages that are complete.

A recipe is a stack of layers: the files it extends, the file itself, then each `--set`. What stands at
the top of the layers is shared by all arms, and but for the rules by all stages. An arm, or a stage,
begins as a copy of what is shared, or of the other one it extends, and has its own layers laid over
that, the lowest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mimetic.config.errors import Issue, clipped
from mimetic.config.suggest import choice
from mimetic.config.text.tree import List, Map, NodePosition
from mimetic.recipe.reading.group import ARM, ARMS, GROUPS, HEAD_KEYS, LISTS, RECIPE, Group
from mimetic.recipe.reading.merge import check_removals, merge, merge_maps, merge_rules, without_removed

MAIN = "main"
"""Name of the only arm of a recipe that has none."""

LEARNED_AWAY = ("model", "surgery", "train", "init", "unmatched", "measure")
"""Keys that a `learner` laid over them replaces: it has neither a network nor rules."""

TRAINED_AWAY = frozenset({"model", "train"})
"""Keys that replace a `learner` they are laid over."""

MAX_CHAIN = 50
"""How many arms, or stages, may extend one another in a row."""


@dataclass(slots=True)
class Composition:
    """The layers of one recipe, laid over one another.

    Attributes:
        layers: The layers, lowest first.
        issues: Receives mistakes of composition, each once.
    """

    layers: Sequence[Map]
    issues: list[Issue]
    _members: dict[tuple[str, str], Map] = field(default_factory=dict)
    _shared: dict[str, Map] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def tree(self) -> Map:
        """Return the composed recipe: its head, its complete arms and its complete stages."""
        tree = Map(self._top())
        for layer in self.layers:
            for key, value, spot in layer.entries():
                if key in tree:
                    tree.put(key, *merge((tree[key], tree.spots[key]), (value, spot), RECIPE.below(key)))
                elif key in HEAD_KEYS:
                    tree.put(key, value, spot)
        for group in GROUPS.values():
            names = self.names(group)
            if not names:
                continue
            members = Map(self._spot_of_group(group))
            for name in names:
                members.put(name, self.member(group, name), self._spot_of(group, name))
            tree.put(group.key, members, members.here)
        self._check_baseline(tree, tree[ARMS.key])
        return tree

    def names(self, group: Group) -> list[str]:
        """Return the names of the arms or stages, those of lower layers first."""
        names = dict.fromkeys(name for layer in self.layers for name in layer.get(group.key, ()))
        return [MAIN] if group is ARMS and not names else list(names)

    def shared(self, group: Group) -> Map:
        """Return what holds for all arms, or for all stages."""
        if group.key not in self._shared:
            keys = (*group.shared, "remove") if "init" in group.shared else group.shared
            state = Map(NodePosition())
            for layer in self.layers:
                state = self._laid_over(state, _only(layer, *keys), group)
            self._shared[group.key] = state
        return self._shared[group.key]

    def member(self, group: Group, name: str) -> Map:
        """Return an arm or a stage, complete."""
        if (group.key, name) not in self._members:
            parent = self._parent(group, name)
            self._open.append(name)
            state = self.shared(group) if parent is None else self.member(group, parent)
            self._open.pop()
            complete = Map(self._spot_of(group, name))
            for key, value, spot in state.entries():
                complete.put(key, value, spot)
            for layer in self.layers:
                if name in layer.get(group.key, ()):
                    complete = self._laid_over(complete, layer[group.key][name], group)
            self._members[group.key, name] = complete
        return self._members[group.key, name]

    def _laid_over(self, state: Map, layer: Map, group: Group) -> Map:
        """Lay the sections of an arm or a stage, or the shared ones of a layer, over a state."""
        if "learner" in layer:
            state = state.without(*LEARNED_AWAY)
        elif TRAINED_AWAY & set(layer):
            state = state.without("learner")
        merged = Map(state.here, layer.here)
        own = _only(layer, *(key for key in group.keys if key not in LISTS))
        for key, value, spot in merge_maps(state.without(*LISTS), own, group.place).entries():
            merged.put(key, value, spot)
        if "remove" in layer:
            ids = [entry.get("id") for key in LISTS for entry in state.get(key, ())]
            check_removals([name for name in ids if isinstance(name, str)], layer["remove"], self.issues)
        for key in LISTS:
            at = state.spots.get(key, layer.spots.get(key, state.here))
            merged.put(key, self._entries(state.get(key, List(state.here)), layer, key), at)
        return merged

    def _entries(self, inherited: List, layer: Map, key: str) -> List:
        """Lay a layer's list of rules, or of rewrites, over the inherited one."""
        entries = without_removed(inherited, layer["remove"]) if "remove" in layer else inherited
        if key not in layer:
            return entries
        return merge_rules(entries, layer[key], ARM.below(key).below(0), noun=LISTS[key])

    def _parent(self, group: Group, name: str) -> str | None:
        """Return what an arm or a stage extends; the highest layer that says so decides."""
        for layer in reversed(self.layers):
            member = layer.get(group.key, {}).get(name)
            if member is None or len(member.get("extends", ())) == 0:
                continue
            parent, spot = member["extends"][0], member["extends"].spots[0]
            problem = self._not_extendable(group, name, str(parent))
            if problem is None:
                return str(parent)
            self.issues.append(Issue(problem[0], spot.path, spot.value, problem[1]))
            return None
        return None

    def _not_extendable(self, group: Group, name: str, parent: str) -> tuple[str, str | None] | None:
        """Return why one cannot extend another, and the repair; None where it can."""
        known = self.names(group)
        if parent not in known:
            others = [other for other in known if other != name]
            hint = f"there is no other {group.noun}"
            if others:
                hint = choice(parent, others, label=group.key)
            elsewhere = [other for other in GROUPS.values() if parent in self.names(other)]
            if elsewhere:
                hint = f"`{clipped(parent)}` is {elsewhere[0].a}, and {group.a} extends another {group.noun}"
            return f"there is no {group.noun} `{clipped(parent)}`", hint
        if len(self._open) >= MAX_CHAIN:
            return f"{group.key} extend one another more than {MAX_CHAIN} deep", None
        chain = [*self._open, name]
        if parent in chain:
            loop = [*chain[chain.index(parent) :], parent]
            shown = " → ".join(clipped(n, 30) for n in loop)
            hint = "let one of them extend nothing"
            return f"the {group.noun} `{clipped(parent)}` extends itself: {shown}", hint
        return None

    def _spot_of(self, group: Group, name: str) -> NodePosition:
        spots = [layer[group.key].spots[name] for layer in self.layers if name in layer.get(group.key, ())]
        return spots[-1] if spots else self._top()

    def _spot_of_group(self, group: Group) -> NodePosition:
        spots = [layer.spots[group.key] for layer in self.layers if group.key in layer]
        return spots[-1] if spots else self._top()

    def _top(self) -> NodePosition:
        return self.layers[-1].here if self.layers else NodePosition()

    def _check_baseline(self, tree: Map, arms: Map) -> None:
        baseline = tree.get("baseline")
        if isinstance(baseline, str) and baseline not in arms:
            spot = tree.spots["baseline"]
            hint = (
                choice(baseline, arms, label="arms")
                if len(self.names(ARMS)) > 1
                else "the recipe has one arm: leave it out"
            )
            self.issues.append(Issue(f"there is no arm `{clipped(baseline)}`", spot.path, spot.value, hint))
            tree.put("baseline", None, spot)


def _only(layer: Map, *keys: str) -> Map:
    """Return the part of a layer that composes."""
    part = Map(layer.here)
    for key, value, spot in layer.entries():
        if key in keys:
            part.put(key, value, spot)
    return part
