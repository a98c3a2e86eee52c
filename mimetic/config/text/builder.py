"""From the events of a YAML document to a tree that knows its places.

PyYAML's loader splits the text into events and is asked for nothing else: what they mean is decided
here. Mistakes that leave the rest readable are noted and the reading goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step, clipped
from mimetic.config.suggest import did_you_mean
from mimetic.config.text.scalars import resolve
from mimetic.config.text.tree import MAX_DEPTH, List, Map, NodePosition, is_unicode

MAX_NODES = 100_000
"""Most values in a file, those that aliases repeat included."""

MAX_ALIASES = 100
"""Most aliases (`*name`) in a file."""

Locate = Callable[[int, int], FilePosition]
"""`locate(line, column)`, both from 0: the mark of a place in the parsed text."""


@dataclass(slots=True)
class _Anchor:
    value: Any
    mark: FilePosition
    size: int  # number of values; 0 while it is being read


@dataclass(slots=True)
class Builder:
    """Builds a tree from the events of one document.

    Attributes:
        loader: PyYAML's loader, at the beginning of the stream.
        locate: Gives marks.
        issues: Receives the mistakes.
    """

    loader: Any
    locate: Locate
    issues: list[Issue]
    anchors: dict[str, _Anchor] = field(default_factory=dict)
    nodes: int = 0
    aliases: int = 0

    def document(self, path: tuple[Step, ...]) -> tuple[Any, FilePosition | None]:
        """Return the only document's value and mark; (None, None) for an empty stream."""
        self.loader.get_event()  # the stream starts
        if self.loader.check_event(yaml.StreamEndEvent):
            return None, None
        self.loader.get_event()  # the document starts
        value, mark = self._node(NodePosition(path))
        self.loader.get_event()  # the document ends
        if not self.loader.check_event(yaml.StreamEndEvent):
            second = self._mark(self.loader.peek_event())
            self._fatal("a second document begins here", second, "a recipe is one document: remove the `---`")
        return value, mark

    def _node(self, at: NodePosition) -> tuple[Any, FilePosition]:
        """Read one value; `at` has its path, and the mark of its key where it has one."""
        event = self.loader.get_event()
        mark = self._mark(event)
        if len(at.path) > MAX_DEPTH:
            self._fatal(f"maps and lists are nested more than {MAX_DEPTH} deep", mark, None)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, at._replace(value=mark)), mark
        self._count(1, mark)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            hint = "remove it; put quotes around a value that must be text"
            self.issues.append(Issue(f"tags such as `{clipped(tag)}` are not allowed", at.path, mark, hint))
        if event.anchor is not None:
            self._open(event.anchor, mark, at.path)
        before = self.nodes
        if isinstance(event, yaml.ScalarEvent):
            if at.key is not None and event.value == "" and event.style is None:
                mark = at.key  # nothing stands there: point at the key
            value = self._scalar(event, at.path, mark)
        else:
            if at.key is not None and at.key.line < mark.line:
                mark = at.key  # a block: point at the key it stands below
            build = self._map if isinstance(event, yaml.MappingStartEvent) else self._list
            value = build(at._replace(value=mark))
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchor(value, mark, self.nodes - before + 1)
        return value, mark

    def _map(self, at: NodePosition) -> Map:
        tree = Map(at)
        while not self.loader.check_event(yaml.MappingEndEvent):
            key, mark = self._key(at.path)
            spot = NodePosition(at.path if key is None else (*at.path, key), None, mark)
            value, value_mark = self._node(spot)
            if key is None:
                continue
            if key in tree:
                hint = "remove one of the two"
                first = tree.spots[key].key
                self.issues.append(
                    Issue(f"the key `{clipped(key)}` is given twice", spot.path, mark, hint, first)
                )
                continue
            tree.put(key, value, spot._replace(value=value_mark))
        self.loader.get_event()
        return tree

    def _key(self, path: tuple[Step, ...]) -> tuple[str | None, FilePosition]:
        """Read a key; None where it is none, which is noted."""
        event = self.loader.peek_event()
        mark = self._mark(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._node(NodePosition(path))
            found = "an alias" if isinstance(event, yaml.AliasEvent) else "a map or a list"
            self._issue(f"keys must be text, found {found}", path, mark, _braces(event))
            return None, mark
        plain = event.implicit[0] and event.style is None
        if plain and event.value == "<<":
            self._node(NodePosition(path))
            hint = "inherit from another arm or file with `extends`, or repeat the keys"
            self._issue("merge keys (`<<`) are not part of the language", path, mark, hint)
            return None, mark
        value, _ = self._node(NodePosition(path))
        if isinstance(value, str):
            return value, mark
        if event.value == "" and plain:
            self._issue("a key is missing before the `:`", path, mark, None)
        else:
            self._issue(
                f"keys must be text, found {event.value}", path, mark, f"put it in quotes: '{event.value}'"
            )
        return None, mark

    def _list(self, at: NodePosition) -> List:
        entries = List(at)
        while not self.loader.check_event(yaml.SequenceEndEvent):
            spot = NodePosition((*at.path, len(entries)))
            value, mark = self._node(spot)
            entries.add(value, spot._replace(value=mark, key=mark))
        self.loader.get_event()
        return entries

    def _scalar(self, event: Any, path: tuple[Step, ...], mark: FilePosition) -> Any:
        text: str = event.value
        if not is_unicode(text):
            self._issue("this text holds half of a Unicode surrogate pair", path, mark, None)
            return ""
        if event.style is not None or event.tag is not None:
            return text
        try:
            return resolve(text)
        except ValueError as error:
            self._issue(str(error), path, mark, "put it in quotes if it is meant as text")
            return 0

    def _open(self, anchor: str, mark: FilePosition, path: tuple[Step, ...]) -> None:
        if anchor in self.anchors:
            first = self.anchors[anchor].mark
            self.issues.append(
                Issue(f"the anchor `&{anchor}` is defined twice", path, mark, "give it another name", first)
            )
        self.anchors[anchor] = _Anchor(None, mark, 0)

    def _alias(self, event: Any, at: NodePosition) -> Any:
        mark = at.value
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            self._fatal(f"more than {MAX_ALIASES} aliases", mark, "use `extends` instead")
        anchor = self.anchors.get(event.anchor)
        self._count(1 if anchor is None else anchor.size, mark)
        if anchor is None:
            hint = did_you_mean(event.anchor, list(self.anchors))
            if hint is None:
                hint = "put quotes around a text that begins with `*`"
            self._issue(f"there is no anchor `&{event.anchor}` before this alias", at.path, mark, hint)
            return None
        if anchor.size == 0:
            self._fatal(f"the alias `*{event.anchor}` stands inside its own anchor", mark, None)
        return self._repeated(anchor.value, at, mark)

    def _repeated(self, value: Any, at: NodePosition, mark: FilePosition | None) -> Any:
        """Copy an anchored value to the place of its alias; its parts keep their marks."""
        if len(at.path) > MAX_DEPTH:
            self._fatal(f"maps and lists are nested more than {MAX_DEPTH} deep", mark, None)
        if isinstance(value, Map):
            tree = Map(at)
            for key, item, spot in value.entries():
                below = spot._replace(path=(*at.path, key))
                tree.put(key, self._repeated(item, below, mark), below)
            return tree
        if isinstance(value, List):
            entries = List(at)
            for index, (item, spot) in enumerate(value.entries()):
                below = spot._replace(path=(*at.path, index))
                entries.add(self._repeated(item, below, mark), below)
            return entries
        return value

    def _count(self, more: int, mark: FilePosition | None) -> None:
        self.nodes += more
        if self.nodes > MAX_NODES:
            self._fatal(f"more than {MAX_NODES:,} values, those that aliases repeat included", mark, None)

    def _mark(self, event: Any) -> FilePosition:
        return self.locate(event.start_mark.line, event.start_mark.column)

    def _issue(
        self, message: str, path: tuple[Step, ...], mark: FilePosition | None, hint: str | None
    ) -> None:
        self.issues.append(Issue(message, path, mark, hint))

    def _fatal(self, message: str, mark: FilePosition | None, hint: str | None) -> NoReturn:
        raise RecipeError([*self.issues, Issue(message, (), mark, hint)])


def _braces(event: Any) -> str | None:
    """Explain `{{name}}`, which templates use and YAML reads as a map that is a key."""
    flow = isinstance(event, yaml.MappingStartEvent) and event.flow_style
    return "put quotes around a text with braces" if flow else None
