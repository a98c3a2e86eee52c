"""Check one layer of a recipe, a file or a `--set`, before composition.

Only what composition relies on is checked: known keys, sections that are maps, rules that are maps with
different ids. Invalid parts are reported and left out, and the rest is still composed and checked. Values are
validated after composition.
"""

from typing import Any

from mimetic.config.errors import Issue, Step, clipped
from mimetic.config.suggest import did_you_mean, listed
from mimetic.config.text.tree import List, Map, NodePosition, addressed, shown
from mimetic.recipe.compose.group import FILE_KEYS, GROUPS, LISTS, Group
from mimetic.recipe.validate.hints import suggest_section

VERSION = 1


def named_entries(tree: Map) -> Map:
    """Return a layer's tree with paths that name rules by id, or as `rule-1`, by position."""

    def name(path: tuple[Step, ...], index: int, entry: Any) -> Step:
        if not is_rules(path):
            return index
        given = entry.get("id") if isinstance(entry, Map) else None
        return given if isinstance(given, str) else f"{LISTS[str(path[-1])]}-{index + 1}"

    return addressed(tree, name)  # type: ignore[no-any-return]


def is_rules(path: tuple[Step, ...]) -> bool:
    """Return whether the value at a path of a layer is a list of rules or rewrites."""
    inside = path[2:] if path and path[0] in GROUPS else path
    return len(inside) == 1 and inside[0] in LISTS


def check_version(tree: Map, issues: list[Issue]) -> None:
    """Report a file for another version of the language, or without a version."""
    if "recipe" not in tree:
        message = "missing key `recipe`, the version of the language"
        issues.append(Issue(message, (), tree.here.value, "start with `recipe: 1`", code="MIM-R051"))
        return
    version, spot = tree["recipe"], tree.spots["recipe"]
    if isinstance(version, bool) or version != VERSION or not isinstance(version, int):
        message = f"this mimetic reads version {VERSION} of the language, found {shown(version)}"
        issues.append(Issue(message, ("recipe",), spot.value, f"write `recipe: {VERSION}`", code="MIM-R052"))


def checked_layer(tree: Map, issues: list[Issue]) -> Map:
    """Return a layer without the parts that composition cannot use, and report those.

    `issues` receives the errors.
    """
    layer = _checked_section(tree, FILE_KEYS, issues, group=None)
    for group in GROUPS.values():
        if group.key in layer:
            layer = _with_members(layer, group, issues)
    return layer


def _with_members(layer: Map, group: Group, issues: list[Issue]) -> Map:
    """Return a layer with its arms, or its stages, checked."""
    members, spot = layer[group.key], layer.spots[group.key]
    if members is None:
        return layer.without(group.key)
    if not isinstance(members, Map):
        message = f"expected a map of {group.key}"
        _wrong(issues, message, members, spot, f"write each {group.noun} as `name: {{…}}`")
        return layer.without(group.key)
    checked = Map(members.here)
    for name, member, at in members.entries():
        given = Map(at) if member is None else member
        if isinstance(given, Map):
            checked.put(name, _checked_section(given, group.layer_keys, issues, group=group), at)
        else:
            hint = f"{group.a} that changes nothing is `{{}}`"
            _wrong(issues, f"expected {group.a} (a map)", member, at, hint)
            checked.put(name, Map(at), at)
    return layer.without(group.key).put(group.key, checked, spot)


def _checked_section(tree: Map, keys: tuple[str, ...], issues: list[Issue], *, group: Group | None) -> Map:
    """Return the usable parts of a file's map (if `group` is None), an arm or a stage."""
    checked = Map(tree.here)
    for key, value, spot in tree.entries():
        if key not in keys:
            message, hint = f"unknown key `{clipped(key)}`", hint_for(key, keys, group)
            issues.append(Issue(message, spot.path, spot.start, hint, code="MIM-R001"))
        elif key in LISTS:
            given = List(spot) if value is None else value
            if (rules := _checked_rules(key, given, spot, issues)) is not None:
                checked.put(key, rules, spot)
        elif key == "sweep":
            if (sweep := _checked_sweep(value, spot, issues)) is not None:
                checked.put(key, sweep, spot)
        elif key in {"remove", "extends"}:
            if value is not None and (names := _checked_names(key, value, spot, issues, group=group)):
                checked.put(key, names, spot)
        else:
            checked.put(key, value, spot)
    return checked


def hint_for(key: str, keys: tuple[str, ...], group: Group | None) -> str:
    """Return a hint for a key that a recipe (if `group` is None), an arm or a stage does not have."""
    if group is not None and key in FILE_KEYS:
        return f"`{key}` applies to the whole recipe: put it at the top"
    kind = "a recipe" if group is None else group.a
    return did_you_mean(key, keys) or suggest_section(key) or f"keys of {kind}: {listed(keys)}"


def _checked_rules(key: str, value: Any, spot: NodePosition, issues: list[Issue]) -> List | None:
    noun = LISTS[key]
    what = "init" if key == "init" else "type"
    if not isinstance(value, List):
        hint = f"start each {noun} with `- `"
        if isinstance(value, str):
            hint = f"a {noun} needs a `match`: `- {{match: …, {what}: {clipped(value, 30)}}}`"
        _wrong(issues, f"expected a list of {noun}s", value, spot, hint)
        return None
    rules, first = List(value.here), dict[str, NodePosition]()
    for rule, at in value.entries():
        if not isinstance(rule, Map):
            _wrong(issues, f"expected a {noun} (a map)", rule, at, f"write `{{match: …, {what}: …}}`")
            continue
        name = rule.get("id")
        if isinstance(name, str):
            if name in first:
                issues.append(_twice(noun, name, rule.spots["id"], first[name]))
                continue
            first[name] = rule.spots["id"]
        rules.add(rule, at)
    return rules


def _checked_sweep(value: object, spot: NodePosition, issues: list[Issue]) -> Map | None:
    """Return the lists of values by path."""
    if not isinstance(value, Map):
        hint = "write `sweep: {train.optimizer.lr: [0.003, 0.01, 0.03]}`"
        _wrong(issues, "expected paths with lists of values (a map)", value, spot, hint)
        return None
    sweep = Map(value.here)
    for path, values, at in value.entries():
        if isinstance(values, List) and values:
            sweep.put(path, values, at)
        else:
            _wrong(
                issues,
                "expected at least one value in a list",
                values,
                at,
                f"write `{clipped(path)}: [1, 2]`",
            )
    return sweep


def _twice(noun: str, name: str, spot: NodePosition, first: NodePosition) -> Issue:
    message = f"two {noun}s of this list have the id `{clipped(name)}`"
    hint = "give one of them another id"
    return Issue(message, spot.path, spot.value, hint, first.value, code="MIM-R053")


def _checked_names(
    key: str, value: Any, spot: NodePosition, issues: list[Issue], *, group: Group | None
) -> List | None:
    """Return the names a key lists; a single name needs no list."""
    expected, entry = "a list of rule ids", "a name"
    if key == "extends" and group is None:
        expected, entry = "a path or a list of paths", "a path"
    elif key == "extends" and group is not None:
        expected = f"the name of {group.a}"
    if isinstance(value, str):
        return List(spot).add(value, spot)
    too_many = isinstance(value, List) and len(value) > 1 and key == "extends" and group is not None
    if not isinstance(value, List) or too_many:
        hint = f"{group.a} extends one other {group.noun}" if group is not None and too_many else None
        _wrong(issues, f"expected {expected}", value, spot, hint)
        return None
    names = List(value.here)
    for name, at in value.entries():
        if isinstance(name, str):
            names.add(name, at)
        else:
            _wrong(issues, f"expected {entry}", name, at, None)
    return names


def _wrong(issues: list[Issue], expected: str, value: Any, spot: NodePosition, hint: str | None) -> None:
    issues.append(Issue(f"{expected}, found {shown(value)}", spot.path, spot.value, hint, code="MIM-R004"))
