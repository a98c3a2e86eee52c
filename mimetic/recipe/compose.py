"""Composition: from the layers of a recipe to arms that are complete.

A recipe is a stack of layers: the files it extends, the file itself, then each `--set`. What stands at
the top of the layers is shared by all arms. An arm begins as a copy of what is shared, or of the arm it
extends, and has its own layers laid over that, the lowest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mimetic.recipe.errors import Issue, clipped
from mimetic.recipe.grammar import place
from mimetic.recipe.layer import ARM_KEYS, HEAD_KEYS
from mimetic.recipe.merge import merge, merge_maps, merge_rules, remove_rules
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.suggest import choice
from mimetic.recipe.tree import List, Map, Spot

MAIN = "main"
"""Name of the only arm of a recipe that has none."""

MAX_CHAIN = 50
"""How many arms may extend one another in a row."""

ARM = place(Arm)
RECIPE = place(Recipe)


@dataclass(slots=True)
class Composition:
    """The layers of one recipe, laid over one another.

    Attributes:
        layers: The layers, lowest first.
        issues: Receives mistakes of composition, each once.
    """

    layers: Sequence[Map]
    issues: list[Issue]
    _arms: dict[str, Map] = field(default_factory=dict)
    _shared: Map | None = None
    _open: list[str] = field(default_factory=list)

    def tree(self) -> Map:
        """Return the composed recipe: its head and its complete arms."""
        tree = Map(self._top())
        for layer in self.layers:
            for key, value, spot in layer.entries():
                if key in tree:
                    tree.put(key, *merge((tree[key], tree.spots[key]), (value, spot), RECIPE.below(key)))
                elif key in HEAD_KEYS:
                    tree.put(key, value, spot)
        arms = Map(self._spot_of_arms())
        for name in self.names():
            arms.put(name, self.arm(name), self._spot_of(name))
        tree.put("arms", arms, arms.here)
        self._check_baseline(tree, arms)
        return tree

    def names(self) -> list[str]:
        """Return the names of the arms, those of lower layers first."""
        names = dict.fromkeys(name for layer in self.layers for name in layer.get("arms", ()))
        return list(names) if names else [MAIN]

    def shared(self) -> Map:
        """Return what holds for all arms."""
        if self._shared is None:
            state = Map(Spot())
            for layer in self.layers:
                state = self._laid_over(state, layer)
            self._shared = state
        return self._shared

    def arm(self, name: str) -> Map:
        """Return an arm, complete."""
        if name not in self._arms:
            parent = self._parent(name)
            self._open.append(name)
            state = self.shared() if parent is None else self.arm(parent)
            self._open.pop()
            complete = Map(self._spot_of(name))
            for key, value, spot in state.entries():
                complete.put(key, value, spot)
            for layer in self.layers:
                if name in layer.get("arms", ()):
                    complete = self._laid_over(complete, layer["arms"][name])
            self._arms[name] = complete
        return self._arms[name]

    def _laid_over(self, state: Map, layer: Map) -> Map:
        """Lay the sections of an arm, or the shared ones of a layer, over a state."""
        rules = state.get("init", List(state.here))
        at = state.spots.get("init", layer.spots.get("init", state.here))
        if "remove" in layer:
            rules = remove_rules(rules, layer["remove"], self.issues)
        if "init" in layer:
            rules = merge_rules(rules, layer["init"], ARM.below("init").below(0))
        merged = Map(state.here, layer.here)
        sections = merge_maps(state.without("init"), _only(layer, *(k for k in ARM_KEYS if k != "init")), ARM)
        for key, value, spot in sections.entries():
            merged.put(key, value, spot)
        return merged.put("init", rules, at)

    def _parent(self, name: str) -> str | None:
        """Return the arm that an arm extends; the highest layer that says so decides."""
        for layer in reversed(self.layers):
            arm = layer.get("arms", {}).get(name)
            if arm is None or len(arm.get("extends", ())) == 0:
                continue
            parent, spot = arm["extends"][0], arm["extends"].spots[0]
            known = self.names()
            if parent not in known:
                others = [n for n in known if n != name]
                hint = choice(parent, others, label="arms") if others else "there is no other arm"
                self.issues.append(Issue(f"there is no arm `{clipped(parent)}`", spot.path, spot.value, hint))
                return None
            if len(self._open) >= MAX_CHAIN:
                message = f"arms extend one another more than {MAX_CHAIN} deep"
                self.issues.append(Issue(message, spot.path, spot.value, None))
                return None
            chain = [*self._open, name]
            if parent in chain:
                loop = [*chain[chain.index(parent) :], parent]
                shown = " → ".join(clipped(n, 30) for n in loop)
                message = f"the arm `{clipped(parent)}` extends itself: {shown}"
                self.issues.append(Issue(message, spot.path, spot.value, "let one of them extend nothing"))
                return None
            return str(parent)
        return None

    def _spot_of(self, name: str) -> Spot:
        spots = [layer["arms"].spots[name] for layer in self.layers if name in layer.get("arms", ())]
        return spots[-1] if spots else self._top()

    def _spot_of_arms(self) -> Spot:
        spots = [layer.spots["arms"] for layer in self.layers if "arms" in layer]
        return spots[-1] if spots else self._top()

    def _top(self) -> Spot:
        return self.layers[-1].here if self.layers else Spot()

    def _check_baseline(self, tree: Map, arms: Map) -> None:
        baseline = tree.get("baseline")
        if isinstance(baseline, str) and baseline not in arms:
            spot = tree.spots["baseline"]
            hint = (
                choice(baseline, arms, label="arms")
                if len(self.names()) > 1
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
