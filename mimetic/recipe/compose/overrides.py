"""Command-line overrides: `--set arms.small.init.filters.scale.gain=0.5`.

Each override is one more layer, merged over the recipe's files like any other: a rule is addressed by its id,
and missing maps are created. `*` in the name of an arm or a stage addresses all that fit and have the rule. A
value is YAML, except where the schema allows only text: there it is taken literally, so a regular expression
needs no quotes. The order in which overrides are given has no effect: what contains others is set before
them, and a `type` before the other keys of its section.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step, clipped, dotted
from mimetic.config.registry import registered
from mimetic.config.suggest import choice, did_you_mean, listed
from mimetic.config.text.tree import List, Map, NodePosition, reach, shown
from mimetic.config.text.yaml_source import parse_value
from mimetic.recipe.compose.composition import Composition
from mimetic.recipe.compose.group import ARM, ARM_KEYS, ARMS, FILE_KEYS, GROUPS, LISTS, RECIPE, Group
from mimetic.recipe.compose.layer import hint_for
from mimetic.recipe.validate.schema_node import SchemaNode, fields_of, type_of

FILE = "--set"
"""File name of the command line in messages; the line is the number of the override."""

_FIXED = {"recipe": "it is the version of the language", "extends": "extend it in a file"}


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A position in the path before the `=`, read from left to right.

    `end` is the length of the path, `start` where the next segment starts; overrides are numbered from 1.
    """

    text: str
    end: int
    number: int
    start: int = 0

    @property
    def ended(self) -> bool:
        return self.start > self.end

    @property
    def rest(self) -> str:
        return self.text[self.start : self.end]

    def mark(self, column: int | None = None) -> FilePosition:
        return FilePosition(FILE, self.number, (self.start if column is None else column) + 1, self.text)

    def at(self, path: tuple[Step, ...]) -> NodePosition:
        return NodePosition(path, self.mark(), self.mark())

    def segment(self, known: Sequence[str] = ()) -> tuple[str, "_Cursor"]:
        """Return the next segment and the position after it; known names may contain dots."""
        fitting = [name for name in known if self.rest == name or self.rest.startswith(f"{name}.")]
        name = max(fitting, key=len) if fitting else self.rest.partition(".")[0]
        return name, replace(self, start=self.start + len(name) + 1)

    def error(self, message: str, code: str, path: tuple[Step, ...], hint: str | None = None) -> RecipeError:
        return RecipeError([Issue(message, path, self.mark(), hint, code=code)])


def ordered(texts: Sequence[str], issues: list[Issue]) -> list[tuple[int, str]]:
    """Return overrides with their numbers, from 1, in the order in which they are applied.

    Two values for one path are an error.
    """
    given: dict[str, tuple[str, int, str]] = {}
    twice: set[str] = set()
    for number, text in enumerate(texts, start=1):
        path, equals, value = text.partition("=")
        path = path.strip(" ") if equals else text
        first_value, first, first_text = given.setdefault(path, (value, number, text))
        if value != first_value:
            twice.add(path)
            mark, other = FilePosition(FILE, number, 1, text), FilePosition(FILE, first, 1, first_text)
            message = f"`{clipped(path)}` is set twice"
            issues.append(Issue(message, (), mark, "remove one of them", other, code="MIM-R077"))
    entries = [(path, number, text) for path, (_, number, text) in given.items() if path not in twice]
    entries.sort(key=lambda entry: (entry[0].count("."), not entry[0].endswith(".type"), entry[0]))
    return [(number, text) for _, number, text in entries]


def without_effect(overrides: Sequence[tuple[int, str]], tree: Map) -> list[str]:
    """Return a note for each override of which nothing is left in the composed recipe."""
    effective = {mark.line for mark in _marks(tree) if "=" in (mark.text or "")[: mark.column - 1]}
    return [
        f"--set {clipped(text)} has no effect: something more specific, or another `--set`, replaces it"
        for number, text in overrides
        if number not in effective
    ]


def _marks(node: Map | List) -> Iterator[FilePosition]:
    """Yield where the values without entries were written, as far as that was the command line."""
    entries = [(v, at) for _, v, at in node.entries()] if isinstance(node, Map) else list(node.entries())
    for value, at in entries:
        if isinstance(value, Map | List) and value:
            yield from _marks(value)
        elif at.value is not None and at.value.file == FILE:
            yield at.value


def layer_of(text: str, number: int, below: Composition, issues: list[Issue], notes: list[str]) -> Map | None:
    """Return an override as a layer, or None if it is wrong.

    Args:
        text: "path=value"; the first `=` separates them.
        number: Which override it is, from 1.
        below: The composition of the layers before it.
        issues: Receives the errors.
        notes: Receives what the override removes from the recipe.
    """
    path, equals, _ = text.partition("=")
    cursor = _Cursor(text, len(path.rstrip(" ")), number)
    try:
        if equals == "" or path.strip() == "":
            hint = "for example train.epochs=5"
            raise cursor.error("expected `path=value`", "MIM-R071", (), hint)
        return _Override(cursor, len(path) + 1, below, issues, notes).layer()
    except RecipeError as error:
        issues.extend(error.issues)
    return None


@dataclass(frozen=True, slots=True)
class _Override:
    """Builds the layer of one override."""

    cursor: _Cursor
    value_start: int
    below: Composition
    issues: list[Issue]
    notes: list[str]

    def layer(self) -> Map:
        cursor = self.cursor
        layer = Map(cursor.at(()))
        key, inner = cursor.segment()
        if key in GROUPS:
            members = Map(cursor.at((key,)))
            for name, member in self._members(inner, GROUPS[key]):
                members.put(name, member, member.here)
            return layer.put(key, members, members.here)
        if key in _FIXED:
            raise cursor.error(f"`{key}` cannot be set here", "MIM-R072", (key,), _FIXED[key])
        if key not in FILE_KEYS:
            raise cursor.error(f"unknown key `{clipped(key)}`", "MIM-R001", (key,), self._key_hint(key))
        return self._put(layer, cursor, (), None)

    def _key_hint(self, key: str) -> str:
        """Return a hint for a path whose first segment is no key of a recipe."""
        names = {name: group.key for group in GROUPS.values() for name in self.below.names(group)}
        if key in names:
            return f"{names[key]} are addressed as `{names[key]}.{key}`"
        return did_you_mean(key, (*FILE_KEYS, *names)) or f"keys of a recipe: {listed(FILE_KEYS)}"

    def _members(self, cursor: _Cursor, group: Group) -> Iterator[tuple[str, Map]]:
        """Yield the names and the layers of the arms or stages that the path addresses."""
        names = self.below.names(group)
        none = f"the recipe has no {group.key}"
        if cursor.ended:
            hint = f"address one: {listed(names)}" if names else none
            message = f"`{group.key}` cannot be set as a whole"
            raise self.cursor.error(message, "MIM-R072", (group.key,), hint)
        name, inner, fitting = self._fitting(cursor, names)
        if not set(fitting) & set(names):
            hint = choice(name, names, label=group.key) if names else none
            message = f"there is no {group.noun} `{clipped(name)}`"
            raise cursor.error(message, "MIM-R073", (group.key, name), hint)
        missing: list[RecipeError] = []
        for each in fitting:
            try:
                yield each, self._member(inner, each, group)
            except RecipeError as error:
                # An arm without the rule is none that the pattern is about.
                missing.append(error)
                if "*" not in name or error.issues[0].code != "MIM-R074" or len(missing) == len(fitting):
                    raise

    def _fitting(self, cursor: _Cursor, names: Sequence[str]) -> tuple[str, _Cursor, list[str]]:
        """Return the first segment, the position after it, and the names that it fits."""
        name, inner = cursor.segment(names)
        parts = cursor.rest.split(".")
        # Names may contain dots: the longest pattern that fits a name counts.
        patterns = [".".join(parts[: count + 1]) for count in reversed(range(len(parts)))]
        for pattern in patterns if name not in names else ():
            if "*" in pattern and (found := [known for known in names if fnmatchcase(known, pattern)]):
                return pattern, replace(cursor, start=cursor.start + len(pattern) + 1), found
        return name, inner, [name]

    def _member(self, cursor: _Cursor, name: str, group: Group) -> Map:
        """Return the layer of an arm or a stage, of which a path sets a part."""
        here = (group.key, name)
        if cursor.ended:
            return self._map_value(cursor, here, group.a)
        key, _ = cursor.segment()
        if key not in group.layer_keys:
            hint = hint_for(key, group.layer_keys, group)
            raise cursor.error(f"unknown key `{clipped(key)}`", "MIM-R001", (*here, key), hint)
        return self._put(Map(cursor.at(here)), cursor, here, group)

    def _put(self, tree: Map, cursor: _Cursor, above: tuple[Step, ...], group: Group | None) -> Map:
        """Put the addressed value into the map of a recipe, an arm or a stage."""
        key, inner = cursor.segment()
        if key in LISTS and not inner.ended:
            rules = List(cursor.at((*above, key)))
            rule = self._rule(inner, above, key)
            return tree.put(key, rules.add(rule, rule.here), rules.here)
        root = group.node if group is not None else ARM if key in ARM_KEYS else RECIPE
        return self._put_value(tree, cursor, above, root)

    def _rule(self, cursor: _Cursor, above: tuple[Step, ...], key: str) -> Map:
        noun = LISTS[key]
        ids = [rule["id"] for rule in self._composed(above)[key] if isinstance(rule.get("id"), str)]
        name, inner = cursor.segment(ids)
        here = (*above, key, name)
        if name not in ids:
            hint = self._rule_hint(name, ids, above, key)
            raise cursor.error(f"there is no {noun} `{clipped(name)}`", "MIM-R074", here, hint)
        rule = Map(cursor.at(here)).put("id", name, cursor.at((*here, "id")))
        if inner.ended:
            return rule.put_all(self._map_value(inner, here, f"a {noun}").entries())
        if inner.segment()[0] == "id":
            raise inner.error(f"the id of a {noun} cannot be changed", "MIM-R072", (*here, "id"))
        return self._put_value(rule, inner, here, self._chosen(ARM.below(key).below(0), here))

    def _rule_hint(self, name: str, ids: list[str], above: tuple[Step, ...], key: str) -> str:
        """Return a hint for an id that no rule has, if need be from other arms and stages."""
        noun = LISTS[key]
        for group in GROUPS.values():
            for other in self.below.names(group):
                rules = self.below.member(group, other)[key]
                if (group.key, other) != above and any(rule.get("id") == name for rule in rules):
                    return f"{group.a} has this {noun}: {group.key}.{other}.{key}.{name}"
        return choice(name, ids, label=f"{noun}s") if ids else f"there are no {noun}s here"

    def _put_value(self, tree: Map, cursor: _Cursor, above: tuple[Step, ...], schema: SchemaNode) -> Map:
        """Put the value at the end of the path into a map, and create the maps in between."""
        key, inner = cursor.segment()
        here, below = (*above, key), schema.below(key)
        if key == "":
            raise cursor.error("a key is missing here", "MIM-R075", above)
        if inner.ended:
            at = NodePosition(here, self._value_mark(), cursor.mark())
            value = self._value(here, below)
            if key == "type" and schema.family is not None and isinstance(value, str):
                tree.put_all(self._remaining(above, value, schema).entries())
            return tree.put(key, value, at)
        if below.items is not None:
            hint = f"set the whole list: {self.cursor.text[: cursor.start]}{key}=[…]"
            message = f"the entries of the list `{key}` have no names"
            raise inner.error(message, "MIM-R076", here, hint)
        value = self._put_value(Map(cursor.at(here)), inner, here, self._chosen(below, here))
        return tree.put(key, value, cursor.at(here))

    def _remaining(self, above: tuple[Step, ...], new: str, schema: SchemaNode) -> Map:
        """Return what a section has that its new type has, too; the other keys are noted."""
        found = reach(self._composed(above), above[2:] if above[0] in GROUPS else above)
        section = found[0] if found is not None and isinstance(found[0], Map) else Map(self.cursor.at(above))
        known = registered(str(schema.family)).get(new)
        if known is None or type_of(section) in {None, new}:
            return Map(section.here)
        dropped = [key for key in section if key not in fields_of(known)]
        if dropped:
            self.notes.append(f"{dotted(above)}: `{new}` has no {listed(dropped)}: dropped")
        return section.without("type", "id", *dropped)

    def _composed(self, above: tuple[Step, ...]) -> Map:
        """Return the arm or the stage that a path is in, complete, or what all arms share."""
        group = next((group for group in GROUPS.values() if above[:1] == (group.key,)), None)
        return self.below.shared(ARMS) if group is None else self.below.member(group, str(above[1]))

    def _chosen(self, schema: SchemaNode, here: tuple[Step, ...]) -> SchemaNode:
        """Return the schema node of the section that the recipe's present `type` chooses."""
        if schema.family is None:
            return schema
        found = reach(self._composed(here), here[2:] if here[0] in GROUPS else here)
        return schema.chosen(None if found is None else found[0])

    def _map_value(self, cursor: _Cursor, here: tuple[Step, ...], noun: str) -> Map:
        value = self._value(here, SchemaNode())
        if isinstance(value, Map):
            return value
        raise cursor.error(f"expected {noun} (a map), found {shown(value)}", "MIM-R004", here)

    def _value(self, here: tuple[Step, ...], schema: SchemaNode) -> Any:
        """Parse the value; where only text is allowed, it is literal unless quoted or null."""
        text = self.cursor.text[self.value_start :]
        stripped = text.strip(" ")
        quoted = stripped[:1] in {"'", '"'} and stripped[-1] == stripped[0]
        if schema.is_text and not quoted:
            return None if stripped in {"", "~", "null"} else stripped

        def locate(line: int, column: int) -> FilePosition:
            return self.cursor.mark(self.value_start + (column if line == 0 else 0))

        value, _ = parse_value(stripped if schema.is_text else text, locate, self.issues, here)
        return str(value) if schema.is_text else value

    def _value_mark(self) -> FilePosition:
        text = self.cursor.text[self.value_start :]
        spaces = len(text) - len(text.lstrip(" "))
        return self.cursor.mark(self.value_start + (spaces if spaces < len(text) else 0))
