"""The unvalidated tree of a recipe: maps and lists with the position of each key and entry.

Positions survive composition, so an error shows where a value was written, in whatever file that is.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step

MAX_DEPTH = 50
"""How deep maps and lists may be nested."""


class NodePosition(NamedTuple):
    """Where a value was written.

    Attributes:
        path: Keys that lead to it in its own file; arms by name, rules by id.
        value: Place of the value.
        key: Place of its key; the value's own place in a list.
    """

    path: tuple[Step, ...] = ()
    value: FilePosition | None = None
    key: FilePosition | None = None

    @property
    def start(self) -> FilePosition | None:
        """Return the place of the key, or of the value where it has none."""
        return self.value if self.key is None else self.key


class Map(dict[str, Any]):
    """A map with the position of each of its keys.

    `here` is where it was written first, `last` where composition changed it last; `spots` are the positions
    of its values by key.
    """

    __slots__ = ("here", "last", "spots")

    def __init__(self, here: NodePosition, last: NodePosition | None = None) -> None:
        super().__init__()
        self.here = here
        self.last = here if last is None else last
        self.spots: dict[str, NodePosition] = {}

    def put(self, key: str, value: object, spot: NodePosition) -> Self:
        """Set a value and its position."""
        self[key] = value
        self.spots[key] = spot
        return self

    def entries(self) -> Iterator[tuple[str, Any, NodePosition]]:
        """Yield keys, values and positions in order."""
        for key, value in self.items():
            yield key, value, self.spots[key]

    def put_all(self, entries: Iterable[tuple[str, object, NodePosition]]) -> Self:
        """Set several values and their positions, as `entries` yields them."""
        for key, value, spot in entries:
            self.put(key, value, spot)
        return self

    def only(self, *keys: str) -> "Map":
        """Return a copy with some of the keys."""
        return Map(self.here, self.last).put_all(entry for entry in self.entries() if entry[0] in keys)

    def without(self, *keys: str) -> "Map":
        """Return a copy without some keys."""
        return self.only(*(key for key in self if key not in keys))


class List(list[Any]):
    """A list with the position of each of its entries; `here` as in `Map`."""

    __slots__ = ("here", "last", "spots")

    def __init__(self, here: NodePosition) -> None:
        super().__init__()
        self.here = self.last = here
        self.spots: list[NodePosition] = []

    def add(self, value: object, spot: NodePosition) -> Self:
        """Append a value and its position."""
        self.append(value)
        self.spots.append(spot)
        return self

    def entries(self) -> Iterator[tuple[Any, NodePosition]]:
        """Yield values and positions in order."""
        return zip(self, self.spots, strict=True)


def plain(node: object) -> Any:
    """Return ordinary dicts and lists of a tree."""
    if isinstance(node, Map):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, List):
        return [plain(value) for value in node]
    return node


def wrapped(value: Mapping[Any, Any]) -> Map:
    """Return the tree of an ordinary mapping, with paths but without file positions.

    Numbers and arrays of numpy and torch, and enumerations, become what YAML has.

    Raises:
        RecipeError: For keys that are not text, text that is not Unicode, and values that contain themselves.
    """
    issues: list[Issue] = []
    tree = _wrap(value, NodePosition(), issues)
    if issues:
        raise RecipeError(issues)
    return tree  # type: ignore[no-any-return]


def _wrap(value: object, spot: NodePosition, issues: list[Issue]) -> Any:
    if len(spot.path) > MAX_DEPTH:
        message = f"maps and lists are nested more than {MAX_DEPTH} deep"
        raise RecipeError([Issue(message, spot.path[:5], code="MIM-C010")])
    value = _as_yaml(value)
    if isinstance(value, Mapping):
        tree = Map(spot)
        for key, item in value.items():
            if not isinstance(key, str) or not is_unicode(key):
                issues.append(Issue(f"keys must be text, found {key!r}", spot.path, code="MIM-C019"))
                continue
            below = NodePosition((*spot.path, key))
            tree.put(key, _wrap(item, below, issues), below)
        return tree
    if isinstance(value, list | tuple):
        entries = List(spot)
        for index, item in enumerate(value):
            below = NodePosition((*spot.path, index))
            entries.add(_wrap(item, below, issues), below)
        return entries
    if isinstance(value, str) and not is_unicode(value):
        issues.append(Issue(f"the text {value!r} is not valid Unicode", spot.path, code="MIM-C022"))
        return ""
    return value


def _as_yaml(value: Any) -> Any:
    """Return a Python value as YAML would give it, where there is such a value."""
    if callable(getattr(value, "tolist", None)):  # numpy, torch, and arrays like theirs
        return value.tolist()
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration, its value
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded; half of a surrogate pair cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def addressed(
    node: object, name: Callable[[tuple[Step, ...], int, object], Step], at: NodePosition | None = None
) -> Any:
    """Return a tree whose paths name the entries of lists by `name(path of the list, index, entry)`."""
    if not isinstance(node, Map | List):
        return node
    here = node.here if at is None else at
    if isinstance(node, Map):
        tree = Map(here)
        for key, value, spot in node.entries():
            below = spot._replace(path=(*here.path, key))
            tree.put(key, addressed(value, name, below), below)
        return tree
    entries = List(here)
    for index, (value, spot) in enumerate(node.entries()):
        below = spot._replace(path=(*here.path, name(here.path, index, value)))
        entries.add(addressed(value, name, below), below)
    return entries


def reach(node: Any, path: Sequence[Step]) -> tuple[Any, NodePosition] | None:
    """Return the value at a path and its position; rules are found by index or by id."""
    if not isinstance(node, Map | List):
        return None
    spot = node.here
    for step in path:
        if isinstance(node, Map) and isinstance(step, str) and step in node:
            node, spot = node[step], node.spots[step]
        elif isinstance(node, List) and (index := _index(node, step)) is not None:
            node, spot = node[index], node.spots[index]
        else:
            return None
    return node, spot


def find(node: object, path: Sequence[Step]) -> NodePosition | None:
    """Return the position of the value at a path; see `reach`."""
    found = reach(node, path)
    return None if found is None else found[1]


def _index(entries: List, step: Step) -> int | None:
    if isinstance(step, int):
        return step if 0 <= step < len(entries) else None
    ids = [entry.get("id") if isinstance(entry, Map) else None for entry in entries]
    return ids.index(step) if step in ids else None


_LONGEST = 60


def shown(value: object) -> str:
    """Describe a value in a message: `the text '5'`, `0`, `true`, `a list`."""
    if value is None or isinstance(value, bool):
        return {None: "nothing (null)", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return f"the text {value if len(value) <= _LONGEST else value[: _LONGEST - 1] + '…'!r}"
    is_list = isinstance(value, list | tuple)
    return (
        "a list" if is_list else "a map" if isinstance(value, Mapping) else f"a Python {type(value).__name__}"
    )


def _number(value: float) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        if math.isinf(value):
            return ".inf" if value > 0 else "-.inf"
        return repr(value)
    digits = 30
    return str(value) if abs(value) < 10**digits else f"a number of more than {digits} digits"
