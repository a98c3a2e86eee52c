"""Compose the layers of a recipe into complete arms and stages.

A recipe is a stack of layers: the files it extends, the file itself, then each `--set`. The top level of the
layers is shared by all arms and, except for the rules, by all stages. An arm or a stage starts as a copy of
what is shared, or of the one it extends; its own layers are merged over that in order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from mimetic.config.errors import Issue, clipped
from mimetic.config.suggest import choice
from mimetic.config.text.tree import List, Map, NodePosition
from mimetic.recipe.compose.group import ARM, ARMS, GROUPS, HEAD_KEYS, LISTS, RECIPE, Group
from mimetic.recipe.compose.merge import check_removals, merge, merge_maps, merge_rules, without_removed

MAIN_ARM = "main"
"""Name of the only arm of a recipe that has none."""

_REPLACED_BY_LEARNER = ("model", "surgery", "train", "init", "unmatched", "measure")
"""Keys that a `learner` in a later layer removes: it has neither a network nor rules."""

_REPLACES_LEARNER = frozenset({"model", "train"})
"""Keys that remove the `learner` of an earlier layer."""

MAX_CHAIN = 50
"""Longest chain of arms, or stages, that extend one another."""


@dataclass(slots=True)
class Composition:
    """The layers of one recipe and what they compose to.

    Attributes:
        layers: The layers, first to last; later ones win.
        issues: Receives the errors of composition, each once.
        hidden: Arms that others extend and that are not trained, since their candidates take their place.
    """

    layers: Sequence[Map]
    issues: list[Issue]
    hidden: Collection[str] = ()
    _members: dict[tuple[str, str], Map] = field(default_factory=dict)
    _shared: dict[str, Map] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def tree(self) -> Map:
        """Return the composed recipe: its head, its complete arms and its complete stages."""
        # 1. The head of the recipe, merged over all layers.
        tree = Map(self._top())
        for layer in self.layers:
            for key, value, spot in layer.entries():
                if key in tree:
                    tree.put(key, *merge((tree[key], tree.spots[key]), (value, spot), RECIPE.below(key)))
                elif key in HEAD_KEYS:
                    tree.put(key, value, spot)
        # 2. Every arm that is trained, and every stage.
        for group in GROUPS.values():
            names = [name for name in self.names(group) if group is not ARMS or name not in self.hidden]
            if not names:
                continue
            members = Map(self._spot_of_group(group))
            for name in names:
                members.put(name, self.member(group, name), self._spot_of(group, name))
            tree.put(group.key, members, members.here)
        self._check_baseline(tree, tree[ARMS.key])
        return tree

    def names(self, group: Group) -> list[str]:
        """Return the names of the arms or stages, those of earlier layers first."""
        names = dict.fromkeys(name for layer in self.layers for name in layer.get(group.key, ()))
        return [MAIN_ARM] if group is ARMS and not names else list(names)

    def shared(self, group: Group) -> Map:
        """Return what all arms, or all stages, share."""
        if group.key not in self._shared:
            keys = (*group.shared, "remove") if "init" in group.shared else group.shared
            state = Map(NodePosition())
            for layer in self.layers:
                state = self._merged(state, layer.only(*keys), group)
            self._shared[group.key] = state
        return self._shared[group.key]

    def member(self, group: Group, name: str) -> Map:
        """Return an arm or a stage, complete."""
        if (group.key, name) not in self._members:
            parent = self._parent(group, name)
            self._open.append(name)
            state = self.shared(group) if parent is None else self.member(group, parent)
            self._open.pop()
            complete = Map(self._spot_of(group, name)).put_all(state.without("candidate_of").entries())
            for layer in self.layers:
                if name in layer.get(group.key, ()):
                    complete = self._merged(complete, layer[group.key][name], group)
            self._members[group.key, name] = complete
        return self._members[group.key, name]

    def _merged(self, state: Map, layer: Map, group: Group) -> Map:
        """Merge the sections of an arm or a stage, or the shared ones of a layer, over a state."""
        # 1. A learner and a network replace each other.
        if "learner" in layer:
            state = state.without(*_REPLACED_BY_LEARNER)
        elif _REPLACES_LEARNER & set(layer):
            state = state.without("learner")
        # 2. Maps merge key by key.
        own = layer.only(*group.keys, "candidate_of").without(*LISTS)
        merged = Map(state.here, layer.here)
        merged.put_all(merge_maps(state.without(*LISTS), own, group.node).entries())
        # 3. Lists of rules and of rewrites merge by id, after removals.
        if "remove" in layer:
            ids = [entry.get("id") for key in LISTS for entry in state.get(key, ())]
            check_removals([name for name in ids if isinstance(name, str)], layer["remove"], self.issues)
        for key in LISTS:
            at = state.spots.get(key, layer.spots.get(key, state.here))
            merged.put(key, self._entries(state.get(key, List(state.here)), layer, key), at)
        return merged

    def _entries(self, inherited: List, layer: Map, key: str) -> List:
        """Merge a layer's list of rules, or of rewrites, over the inherited one."""
        entries = without_removed(inherited, layer["remove"]) if "remove" in layer else inherited
        if key not in layer:
            return entries
        if not layer[key] and entries:
            names = ", ".join(str(entry.get("id")) for entry in entries)
            message = f"an empty list changes nothing: {LISTS[key]}s merge by id, and some are inherited"
            at = layer.spots[key]
            hint = f"`remove: [{clipped(names)}]` removes them"
            self.issues.append(Issue(message, at.path, at.value, hint, code="MIM-R045"))
        return merge_rules(entries, layer[key], ARM.below(key).below(0), noun=LISTS[key])

    def _parent(self, group: Group, name: str) -> str | None:
        """Return what an arm or a stage extends; the last layer that has `extends` decides."""
        for layer in reversed(self.layers):
            member = layer.get(group.key, {}).get(name)
            if member is None or len(member.get("extends", ())) == 0:
                continue
            parent, spot = member["extends"][0], member["extends"].spots[0]
            problem = self._not_extendable(group, name, str(parent), spot)
            if problem is not None:
                self.issues.append(problem)
            return str(parent) if problem is None else None
        return None

    def _not_extendable(self, group: Group, name: str, parent: str, at: NodePosition) -> Issue | None:
        """Return the reason why one cannot extend another, or None."""
        known, shown_parent = self.names(group), clipped(parent)
        if parent not in known:
            others = [other for other in known if other != name]
            hint = choice(parent, others, label=group.key) if others else f"there is no other {group.noun}"
            elsewhere = [other for other in GROUPS.values() if parent in self.names(other)]
            if elsewhere:
                hint = f"`{shown_parent}` is {elsewhere[0].a}, and {group.a} extends another {group.noun}"
            message = f"there is no {group.noun} `{shown_parent}`"
            return Issue(message, at.path, at.value, hint, code="MIM-R041")
        if len(self._open) >= MAX_CHAIN:
            message = f"{group.key} extend one another more than {MAX_CHAIN} deep"
            return Issue(message, at.path, at.value, code="MIM-R042")
        chain = [*self._open, name]
        if parent in chain:
            loop = [*chain[chain.index(parent) :], parent]
            shown = " → ".join(clipped(n, 30) for n in loop)
            message = f"the {group.noun} `{shown_parent}` extends itself: {shown}"
            return Issue(message, at.path, at.value, "remove one of these `extends`", code="MIM-R043")
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
            message = f"there is no arm `{clipped(baseline)}`"
            self.issues.append(Issue(message, spot.path, spot.value, hint, code="MIM-R044"))
            tree.put("baseline", None, spot)
