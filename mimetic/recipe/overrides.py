"""Changes from the command line: `--set arms.small.init.filters.scale.gain=0.5`.

Each is one more layer, laid over the recipe's files by the rules of composition: a rule is addressed by
its id, wherever it was inherited from, and missing maps come into being. A change at the top of the
recipe reaches the arms that do not say otherwise, like everything there. The schema says whether a
value is text: then it is taken as it stands, so that a regular expression needs no quotes.
"""

from dataclasses import dataclass
from typing import Any

from mimetic.recipe.compose import ARM, RECIPE, Composition
from mimetic.recipe.errors import Issue, Mark, RecipeError, Step, clipped
from mimetic.recipe.grammar import Place
from mimetic.recipe.layer import ARM_KEYS, FILE_KEYS, LAYER_ARM_KEYS
from mimetic.recipe.suggest import choice, did_you_mean, listed
from mimetic.recipe.tree import List, Map, Spot, reach, shown
from mimetic.recipe.yaml_source import parse_value

FILE = "--set"
"""What messages call the command line; the line is the number of the override."""

_FIXED = {
    "recipe": "it is the version of the language",
    "extends": "extend it in a file",
    "arms": "name an arm",
}


class _Refused(Exception):  # noqa: N818 - carries an issue to the one place that notes it
    def __init__(self, issue: Issue) -> None:
        self.issue = issue


@dataclass(frozen=True, slots=True)
class _Path:
    """What stands before the `=`, read from left to right."""

    text: str
    whole: str
    number: int
    start: int = 0

    def mark(self, column: int | None = None) -> Mark:
        at = self.start if column is None else column
        return Mark(FILE, self.number, at + 1, self.whole)

    @property
    def rest(self) -> str:
        return self.text[self.start :]

    @property
    def ended(self) -> bool:
        return self.start > len(self.text)

    def segment(self, known: tuple[str, ...] = ()) -> str:
        """Return the next segment: the longest known name that fits, since names may hold dots."""
        fitting = [name for name in known if self.rest == name or self.rest.startswith(f"{name}.")]
        return max(fitting, key=len) if fitting else self.rest.partition(".")[0]

    def after(self, segment: str) -> "_Path":
        return _Path(self.text, self.whole, self.number, self.start + len(segment) + 1)


def layer_of(text: str, number: int, below: Composition, issues: list[Issue]) -> Map | None:
    """Return an override as a layer, or None and the reason among the issues.

    Args:
        text: "path=value"; the first `=` separates them.
        number: Which override it is, from 1.
        below: The layers it is laid over, which know the arms and rules there are.
        issues: Receives the mistakes.
    """
    path_text, equals, value_text = text.partition("=")
    path = _Path(path_text.rstrip(" "), text, number)
    try:
        if equals == "" or path.rest.strip() == "":
            hint = "for example train.epochs=5"
            raise _Refused(Issue("expected `path=value`", (), path.mark(), hint))  # noqa: TRY301
        return _Patch(path, value_text, len(path_text) + 1, below, issues).layer()
    except _Refused as refused:
        issues.append(refused.issue)
    except RecipeError as error:
        issues.extend(error.issues)
    return None


@dataclass(frozen=True, slots=True)
class _Patch:
    """One override on its way to a layer."""

    path: _Path
    value: str
    value_start: int
    below: Composition
    issues: list[Issue]

    def layer(self) -> Map:
        spot = Spot((), self.path.mark(0), self.path.mark(0))
        layer = Map(spot)
        key = self.path.segment()
        if key == "arms":
            return self._arm(layer)
        if key in _FIXED:
            raise self._refusal(f"`{key}` cannot be set here", (key,), _FIXED[key])
        if key not in FILE_KEYS:
            hint = did_you_mean(key, (*FILE_KEYS, *self.below.names()))
            if key in self.below.names():
                hint = f"arms are addressed as `arms.{key}`"
            hint = hint if hint is not None else f"keys of a recipe: {listed(FILE_KEYS)}"
            raise self._refusal(f"unknown key `{clipped(key)}`", (key,), hint)
        return self._section(layer, self.path, (), None)

    def _arm(self, layer: Map) -> Map:
        path = self.path.after("arms")
        names = tuple(self.below.names())
        if path.ended:
            raise self._refusal("`arms` cannot be set as a whole", ("arms",), f"address one: {listed(names)}")
        name = path.segment(names)
        if name not in names:
            hint = choice(name, names, label="arms")
            raise self._refusal(f"there is no arm `{clipped(name)}`", ("arms", name), hint, path)
        inner = path.after(name)
        arm = Map(Spot(("arms", name), path.mark(), path.mark()))
        if inner.ended:
            value = self._parsed(("arms", name), Place())
            if not isinstance(value, Map):
                raise self._refusal(
                    f"expected an arm (a map), found {shown(value)}", ("arms", name), None, inner
                )
            arm = value
        else:
            key = inner.segment()
            if key not in LAYER_ARM_KEYS:
                hint = choice(key, LAYER_ARM_KEYS, label="keys of an arm")
                raise self._refusal(f"unknown key `{clipped(key)}`", ("arms", name, key), hint, inner)
            arm = self._section(arm, inner, ("arms", name), name)
        arms = Map(Spot(("arms",), self.path.mark(), self.path.mark())).put(name, arm, arm.here)
        return layer.put("arms", arms, arms.here)

    def _section(self, tree: Map, path: _Path, above: tuple[Step, ...], arm: str | None) -> Map:
        """Put what the path addresses below an arm, or below the recipe, into a map."""
        key = path.segment()
        root = ARM if key in ARM_KEYS else RECIPE
        if key == "init" and not path.after(key).ended:
            return self._rule(tree, path, above, arm)
        return self._put(tree, path, above, root)

    def _rule(self, tree: Map, path: _Path, above: tuple[Step, ...], arm: str | None) -> Map:
        inner = path.after("init")
        state = self.below.shared() if arm is None else self.below.arm(arm)
        ids = tuple(rule["id"] for rule in state["init"] if isinstance(rule.get("id"), str))
        name = inner.segment(ids)
        here = (*above, "init", name)
        if name not in ids:
            raise self._refusal(
                f"there is no rule `{clipped(name)}`", here, self._rule_hint(name, ids, arm), inner
            )
        spot = Spot(here, inner.mark(), inner.mark())
        rule = Map(spot).put("id", name, Spot((*here, "id"), inner.mark(), inner.mark()))
        deeper = inner.after(name)
        kind = ARM.below("init").below(0)
        if deeper.ended:
            value = self._parsed(here, kind)
            if not isinstance(value, Map):
                raise self._refusal(f"expected a rule (a map), found {shown(value)}", here, None, inner)
            for key, item, at in value.entries():
                rule.put(key, item, at)
        elif deeper.segment() == "id":
            raise self._refusal("the id of a rule cannot be changed", (*here, "id"), None, deeper)
        else:
            rule = self._put(rule, deeper, here, kind)
        rules = List(Spot((*above, "init"), path.mark(), path.mark())).add(rule, spot)
        return tree.put("init", rules, rules.here)

    def _rule_hint(self, name: str, ids: tuple[str, ...], arm: str | None) -> str:
        holders = [
            other
            for other in self.below.names()
            if other != arm and any(rule.get("id") == name for rule in self.below.arm(other)["init"])
        ]
        if holders:
            return (
                f"it is a rule of {'an arm' if len(holders) == 1 else 'arms'}: arms.{holders[0]}.init.{name}"
            )
        return choice(name, ids, label="rules") if ids else "there are no rules here"

    def _put(self, tree: Map, path: _Path, above: tuple[Step, ...], kind: Place) -> Map:
        """Put the value at the end of the path into a map, with the maps between."""
        key = path.segment()
        here, below = (*above, key), kind.below(key)
        inner = path.after(key)
        if key == "":
            raise self._refusal("a key is missing here", above, None, path)
        if inner.ended:
            value = self._parsed(here, below)
        elif below.items is not None:
            hint = f"set the whole list: {self.path.whole[: path.start]}{key}=[…]"
            raise self._refusal(f"the entries of the list `{key}` have no names", here, hint, inner)
        else:
            spot = Spot(here, path.mark(), path.mark())
            value = self._put(Map(spot), inner, here, self._chosen(below, here))
        return tree.put(
            key, value, Spot(here, self._value_mark() if inner.ended else path.mark(), path.mark())
        )

    def _chosen(self, kind: Place, here: tuple[Step, ...]) -> Place:
        """Return the place with the section that the recipe's present type chooses."""
        if kind.family is None:
            return kind
        arm = str(here[1]) if here[0] == "arms" else None
        base = self.below.shared() if arm is None else self.below.arm(arm)
        found = reach(base, here if arm is None else here[2:])
        return kind.chosen(None if found is None else found[0])

    def _parsed(self, here: tuple[Step, ...], kind: Place) -> Any:
        def locate(line: int, column: int) -> Mark:
            return self.path.mark(self.value_start + column if line == 0 else self.value_start)

        if kind.is_text:
            return self._text(locate, here)
        value, _ = parse_value(self.value, locate, self.issues, here)
        return value

    def _text(self, locate: Any, here: tuple[Step, ...]) -> str | None:
        """Return a value where only text may stand: as it is written, unless it is quoted or null."""
        stripped = self.value.strip(" ")
        if stripped in {"", "~", "null"}:
            return None
        if stripped[0] in "'\"" and stripped[-1] == stripped[0]:
            value, _ = parse_value(stripped, locate, self.issues, here)
            return str(value)
        return stripped

    def _value_mark(self) -> Mark:
        space = len(self.value) - len(self.value.lstrip(" "))
        return self.path.mark(self.value_start + (space if space < len(self.value) else 0))

    def _refusal(
        self, message: str, path: tuple[Step, ...], hint: str | None, at: _Path | None = None
    ) -> _Refused:
        return _Refused(Issue(message, path, (self.path if at is None else at).mark(), hint))
