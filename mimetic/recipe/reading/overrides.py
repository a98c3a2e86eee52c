"""Changes from the command line: `--set arms.small.init.filters.scale.gain=0.5`.

Each is one more layer, laid over the recipe's files by the rules of composition: a rule is addressed by
its id, wherever it was inherited from, and missing maps come into being. A change at the top of the
recipe reaches the arms and stages that do not say otherwise, like everything there. The schema says whether a
value is text: then it is taken as it stands, so that a regular expression needs no quotes.
"""

from dataclasses import dataclass
from typing import Any

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step, clipped
from mimetic.config.suggest import choice, did_you_mean, listed
from mimetic.config.text.tree import List, Map, NodePosition, reach, shown
from mimetic.config.text.yaml_source import parse_value
from mimetic.recipe.reading.compose import Composition
from mimetic.recipe.reading.grammar import Place
from mimetic.recipe.reading.group import ARM, ARM_KEYS, ARMS, FILE_KEYS, GROUPS, LISTS, RECIPE, Group
from mimetic.recipe.reading.layer import hint_for

FILE = "--set"
"""What messages call the command line; the line is the number of the override."""

_FIXED = {
    "recipe": "it is the version of the language",
    "extends": "extend it in a file",
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

    def mark(self, column: int | None = None) -> FilePosition:
        at = self.start if column is None else column
        return FilePosition(FILE, self.number, at + 1, self.whole)

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
        spot = NodePosition((), self.path.mark(0), self.path.mark(0))
        layer = Map(spot)
        key = self.path.segment()
        if key in GROUPS:
            return self._member(layer, GROUPS[key])
        if key in _FIXED:
            raise self._refusal(f"`{key}` cannot be set here", (key,), _FIXED[key])
        if key not in FILE_KEYS:
            raise self._refusal(f"unknown key `{clipped(key)}`", (key,), self._key_hint(key))
        return self._section(layer, self.path, (), None)

    def _key_hint(self, key: str) -> str:
        """Return the repair for a path that begins with no key of a recipe."""
        for group in GROUPS.values():
            if key in self.below.names(group):
                return f"{group.key} are addressed as `{group.key}.{key}`"
        names = [name for group in GROUPS.values() for name in self.below.names(group)]
        hint = did_you_mean(key, (*FILE_KEYS, *names))
        return hint if hint is not None else f"keys of a recipe: {listed(FILE_KEYS)}"

    def _member(self, layer: Map, group: Group) -> Map:
        """Put what the path addresses below an arm or a stage into a layer."""
        path = self.path.after(group.key)
        names = tuple(self.below.names(group))
        none = f"the recipe has no {group.key}"
        if path.ended:
            hint = f"address one: {listed(names)}" if names else none
            raise self._refusal(f"`{group.key}` cannot be set as a whole", (group.key,), hint)
        name = path.segment(names)
        here = (group.key, name)
        if name not in names:
            hint = choice(name, names, label=group.key) if names else none
            raise self._refusal(f"there is no {group.noun} `{clipped(name)}`", here, hint, path)
        inner = path.after(name)
        member = Map(NodePosition(here, path.mark(), path.mark()))
        if inner.ended:
            value = self._parsed(here, Place())
            if not isinstance(value, Map):
                raise self._refusal(f"expected {group.a} (a map), found {shown(value)}", here, None, inner)
            member = value
        else:
            key = inner.segment()
            if key not in group.layer_keys:
                hint = hint_for(key, group.layer_keys, group)
                raise self._refusal(f"unknown key `{clipped(key)}`", (*here, key), hint, inner)
            member = self._section(member, inner, here, group)
        members = Map(NodePosition((group.key,), self.path.mark(), self.path.mark())).put(
            name, member, member.here
        )
        return layer.put(group.key, members, members.here)

    def _section(self, tree: Map, path: _Path, above: tuple[Step, ...], group: Group | None) -> Map:
        """Put what the path addresses below an arm or a stage, or below the recipe, into a map."""
        key = path.segment()
        if key in LISTS and not path.after(key).ended:
            return self._rule(tree, path, above, key)
        root = group.place if group is not None else ARM if key in ARM_KEYS else RECIPE
        return self._put(tree, path, above, root)

    def _state(self, above: tuple[Step, ...]) -> Map:
        """Return the arm or the stage a path lies in, complete, or else what all arms share."""
        group = next((group for group in GROUPS.values() if above[:1] == (group.key,)), None)
        return self.below.shared(ARMS) if group is None else self.below.member(group, str(above[1]))

    def _rule(self, tree: Map, path: _Path, above: tuple[Step, ...], key: str) -> Map:
        noun = LISTS[key]
        inner = path.after(key)
        rules = self._state(above)[key]
        ids = tuple(rule["id"] for rule in rules if isinstance(rule.get("id"), str))
        name = inner.segment(ids)
        here = (*above, key, name)
        if name not in ids:
            hint = self._rule_hint(name, ids, above, key)
            raise self._refusal(f"there is no {noun} `{clipped(name)}`", here, hint, inner)
        spot = NodePosition(here, inner.mark(), inner.mark())
        rule = Map(spot).put("id", name, NodePosition((*here, "id"), inner.mark(), inner.mark()))
        deeper = inner.after(name)
        kind = ARM.below(key).below(0)
        if deeper.ended:
            value = self._parsed(here, kind)
            if not isinstance(value, Map):
                raise self._refusal(f"expected a {noun} (a map), found {shown(value)}", here, None, inner)
            for inside, item, at in value.entries():
                rule.put(inside, item, at)
        elif deeper.segment() == "id":
            raise self._refusal(f"the id of a {noun} cannot be changed", (*here, "id"), None, deeper)
        else:
            rule = self._put(rule, deeper, here, self._chosen(kind, here))
        merged = List(NodePosition((*above, key), path.mark(), path.mark())).add(rule, spot)
        return tree.put(key, merged, merged.here)

    def _rule_hint(self, name: str, ids: tuple[str, ...], above: tuple[Step, ...], key: str) -> str:
        noun = LISTS[key]
        for group in GROUPS.values():
            holders = [
                other
                for other in self.below.names(group)
                if (group.key, other) != above
                and any(rule.get("id") == name for rule in self.below.member(group, other)[key])
            ]
            if holders:
                whose = group.a if len(holders) == 1 else group.key
                return f"it is a {noun} of {whose}: {group.key}.{holders[0]}.{key}.{name}"
        return choice(name, ids, label=f"{noun}s") if ids else f"there are no {noun}s here"

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
            spot = NodePosition(here, path.mark(), path.mark())
            value = self._put(Map(spot), inner, here, self._chosen(below, here))
        return tree.put(
            key, value, NodePosition(here, self._value_mark() if inner.ended else path.mark(), path.mark())
        )

    def _chosen(self, kind: Place, here: tuple[Step, ...]) -> Place:
        """Return the place with the section that the recipe's present type chooses."""
        if kind.family is None:
            return kind
        found = reach(self._state(here), here[2:] if here[0] in GROUPS else here)
        return kind.chosen(None if found is None else found[0])

    def _parsed(self, here: tuple[Step, ...], kind: Place) -> Any:
        def locate(line: int, column: int) -> FilePosition:
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

    def _value_mark(self) -> FilePosition:
        space = len(self.value) - len(self.value.lstrip(" "))
        return self.path.mark(self.value_start + (space if space < len(self.value) else 0))

    def _refusal(
        self, message: str, path: tuple[Step, ...], hint: str | None, at: _Path | None = None
    ) -> _Refused:
        return _Refused(Issue(message, path, (self.path if at is None else at).mark(), hint))
