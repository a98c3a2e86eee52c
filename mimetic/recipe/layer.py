"""One layer of a recipe, before composition: what a file, or a `--set`, says by itself.

Checks what composition relies on: known keys, sections that are maps, rules that are maps with ids of
their own. What is wrong is noted and left out, so that the rest is still composed and checked. What
the values are is checked after composition, once, by the schema.
"""

from typing import Any

from mimetic.recipe.advice import home_of
from mimetic.recipe.errors import Issue, Step, clipped
from mimetic.recipe.suggest import did_you_mean, listed
from mimetic.recipe.tree import List, Map, Spot, addressed, shown

VERSION = 1

ARM_KEYS = ("model", "data", "train", "init", "unmatched")
"""Keys of a complete arm; at the top of a recipe they hold for all arms."""

HEAD_KEYS = ("recipe", "name", "description", "seeds", "baseline", "study")
"""Keys of the recipe as a whole."""

FILE_KEYS = (*HEAD_KEYS[:3], "extends", *HEAD_KEYS[3:], *ARM_KEYS, "remove", "arms")
LAYER_ARM_KEYS = ("extends", *ARM_KEYS, "remove")


def named_entries(tree: Map) -> Map:
    """Return a layer's tree with paths that name rules by id, or `rule-1` by position for want of one."""

    def name(path: tuple[Step, ...], index: int, entry: Any) -> Step:
        if not is_rules(path):
            return index
        given = entry.get("id") if isinstance(entry, Map) else None
        return given if isinstance(given, str) else f"rule-{index + 1}"

    return addressed(tree, name)  # type: ignore[no-any-return]


def is_rules(path: tuple[Step, ...]) -> bool:
    """Tell whether a list of rules stands at a path of a layer."""
    return path == ("init",) or (len(path) == 3 and path[0] == "arms" and path[2] == "init")  # noqa: PLR2004


def check_version(tree: Map, issues: list[Issue]) -> None:
    """Note a file that is written for another version of the language, or for none."""
    if "recipe" not in tree:
        mark = tree.here.value
        issues.append(
            Issue("missing key `recipe`, the version of the language", (), mark, "begin with `recipe: 1`")
        )
        return
    version, spot = tree["recipe"], tree.spots["recipe"]
    if isinstance(version, bool) or version != VERSION or not isinstance(version, int):
        message = f"this mimetic reads version {VERSION} of the language, found {shown(version)}"
        issues.append(Issue(message, ("recipe",), spot.value, f"write `recipe: {VERSION}`"))


def checked_layer(tree: Map, issues: list[Issue]) -> Map:
    """Return a layer with everything composition cannot use left out and noted.

    Args:
        tree: A file's map, its entries named.
        issues: Receives the mistakes.
    """
    layer = _checked_section(tree, FILE_KEYS, issues)
    if "arms" not in layer:
        return layer
    arms, spot = layer["arms"], layer.spots["arms"]
    if arms is None:
        return layer.without("arms")
    if not isinstance(arms, Map):
        _wrong(issues, "expected a map of arms", arms, spot, "write each arm as `name: {…}`")
        return layer.without("arms")
    checked = Map(arms.here)
    for name, arm, arm_spot in arms.entries():
        given = Map(arm_spot) if arm is None else arm
        if isinstance(given, Map):
            checked.put(name, _checked_section(given, LAYER_ARM_KEYS, issues, arm=name), arm_spot)
        else:
            _wrong(issues, "expected an arm (a map)", arm, arm_spot, "an arm that changes nothing is `{}`")
            checked.put(name, Map(arm_spot), arm_spot)
    return layer.without("arms").put("arms", checked, spot)


def _checked_section(tree: Map, keys: tuple[str, ...], issues: list[Issue], *, arm: str | None = None) -> Map:
    checked = Map(tree.here)
    for key, value, spot in tree.entries():
        if key not in keys:
            issues.append(_unknown(key, spot, keys, arm))
        elif key == "init":
            if value is not None and (rules := _checked_rules(value, spot, issues)) is not None:
                checked.put(key, rules, spot)
        elif key in {"remove", "extends"}:
            if value is not None and (
                names := _checked_names(key, value, spot, issues, single=arm is not None)
            ):
                checked.put(key, names, spot)
        else:
            checked.put(key, value, spot)
    return checked


def _unknown(key: str, spot: Spot, keys: tuple[str, ...], arm: str | None) -> Issue:
    kind = "a recipe" if arm is None else "an arm"
    if arm is not None and key in FILE_KEYS:
        hint = f"`{key}` holds for the whole recipe: put it at the top"
    else:
        guesses = (did_you_mean(key, keys), home_of(key), f"keys of {kind}: {listed(keys)}")
        hint = next(guess for guess in guesses if guess is not None)
    return Issue(f"unknown key `{clipped(key)}`", spot.path, spot.start, hint)


def _checked_rules(value: Any, spot: Spot, issues: list[Issue]) -> List | None:
    if not isinstance(value, List):
        hint = "begin each rule with `- `"
        if isinstance(value, str):
            hint = f"a rule says where: `- {{match: …, init: {clipped(value, 30)}}}`"
        _wrong(issues, "expected a list of rules", value, spot, hint)
        return None
    rules, first = List(value.here), dict[str, Spot]()
    for rule, at in value.entries():
        if not isinstance(rule, Map):
            _wrong(issues, "expected a rule (a map)", rule, at, "write `{match: …, init: …}`")
            continue
        name = rule.get("id")
        if isinstance(name, str):
            if name in first:
                issues.append(_twice(name, rule.spots["id"], first[name]))
                continue
            first[name] = rule.spots["id"]
        rules.add(rule, at)
    return rules


def _twice(name: str, spot: Spot, first: Spot) -> Issue:
    message = f"two rules of this list have the id `{clipped(name)}`"
    return Issue(message, spot.path, spot.value, "give one of them another id", first.value)


def _checked_names(key: str, value: Any, spot: Spot, issues: list[Issue], *, single: bool) -> List | None:
    """Return the names a key lists; one name may stand without a list."""
    one_arm = single and key == "extends"
    kind = (
        "the name of an arm"
        if one_arm
        else "a path or a list of paths"
        if key == "extends"
        else "a list of rule ids"
    )
    if isinstance(value, str):
        return List(spot).add(value, spot)
    if not isinstance(value, List) or (one_arm and len(value) > 1):
        hint = "an arm extends one other arm" if one_arm and isinstance(value, List) else None
        _wrong(issues, f"expected {kind}", value, spot, hint)
        return None
    names = List(value.here)
    for name, at in value.entries():
        if isinstance(name, str):
            names.add(name, at)
        else:
            _wrong(
                issues, "expected a name" if key == "remove" or one_arm else "expected a path", name, at, None
            )
    return names


def _wrong(issues: list[Issue], expected: str, value: Any, spot: Spot, hint: str | None) -> None:
    issues.append(Issue(f"{expected}, found {shown(value)}", spot.path, spot.value, hint))
