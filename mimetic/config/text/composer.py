"""Turn YAML text into a tree of maps and lists with positions.

PyYAML composes the nodes and finds the syntax errors. The constructor here is stricter than PyYAML's: keys
are unique text, tags and merge keys are errors, aliases and nesting are bounded, and plain scalars follow
`scalars`. Errors that leave the rest readable are collected.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from mimetic.config.errors import FilePosition, Issue, RecipeError, Step, clipped
from mimetic.config.suggest import did_you_mean
from mimetic.config.text.scalars import parse_scalar
from mimetic.config.text.tree import MAX_DEPTH, List, Map, NodePosition, is_unicode

MAX_NODES = 100_000
"""Maximum number of values in a file, with each alias counted at its full size."""

MAX_ALIASES = 100
"""Maximum number of aliases (`*name`) in a file."""

Locate = Callable[[int, int], FilePosition]
"""`locate(line, column)`, both from 0, returns the position in the parsed text."""

_HINTS = {
    r"character '\t'": "indent with spaces, not tabs",
    "cannot start any token": "put the text in quotes",
    "escape": r"in double quotes `\` starts an escape; use single quotes: 'C:\data', 'blocks\.\d+'",
    "mapping values are not allowed": "write `key: value` with a space after `:`, put quotes around a text "
    "that contains `: `, and compare the indentation with the line above",
    "expected ':'": "write `key: value`; a text over several lines needs quotes or `|`",
    "expected ',' or": "put quotes around a text that contains brackets, braces, quotes or `: `, or close "
    "the bracket",
    "but found '<scalar>'": "put quotes around the whole value",
    "<block end>": "align the keys of a map, and start each list entry with `- ` below its key",
    "sequence entries": "start the list on its own line, below its key",
    "<document start>": "compare the indentation with the first line",
    "alphabetic or numeric character": "put quotes around a text that starts with `*` or `&`",
    "chomping": "put quotes around a text that starts with `|` or `>`",
    "another document": "a recipe is one document: remove the `---`",
    "second occurrence": "give the anchor another name",
}
"""Repairs by a part of PyYAML's error message; the first that fits is shown."""


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with limits. It resolves no tags but records the explicit ones."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.num_aliases = 0
        self.explicit_tags: dict[int, str] = {}

    def resolve(self, _kind: type, _value: Any, _implicit: Any) -> str:
        return ""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            return self._compose_alias(event)
        if self.depth > MAX_DEPTH:
            raise _LimitError(_too_deep(), event.start_mark)
        self.depth += 1
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if event.tag is not None:
            self.explicit_tags[id(node)] = event.tag
        return node

    def _compose_alias(self, event: Any) -> Any:
        self.num_aliases += 1
        if self.num_aliases > MAX_ALIASES:
            raise _LimitError(f"more than {MAX_ALIASES} aliases", event.start_mark, "MIM-C011")
        known = list(self.anchors)
        if event.anchor not in known:
            hint = did_you_mean(event.anchor, known) or "put quotes around a text that starts with `*`"
            message = f"there is no anchor `&{event.anchor}` before this alias"
            raise _LimitError(message, event.start_mark, "MIM-C012", hint)
        self.get_event()  # type: ignore[no-untyped-call]
        node = copy(self.anchors[event.anchor])
        node.start_mark = event.start_mark
        return node


class _LimitError(Exception):
    """An error that ends the composition."""

    def __init__(self, message: str, mark: Any, code: str = "MIM-C010", hint: str | None = None) -> None:
        super().__init__(message)
        self.mark, self.code, self.hint = mark, code, hint


def _too_deep() -> str:
    return f"maps and lists are nested more than {MAX_DEPTH} deep"


def compose(
    text: str, locate: Locate, issues: list[Issue], path: tuple[Step, ...] = ()
) -> tuple[Any, FilePosition | None]:
    """Parse the only document of a text; return its value and position, or (None, None) for an empty text.

    `issues` receives the errors that leave the rest readable; `path` leads to the value.

    Raises:
        RecipeError: With `issues` and the error that ended parsing.
    """
    loader = _Composer(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        return _Constructor(locate, issues, loader.explicit_tags).construct(node, NodePosition(path))
    except yaml.MarkedYAMLError as error:
        raise RecipeError([*issues, _syntax_issue(error, locate)]) from None
    except _LimitError as error:
        mark = locate(error.mark.line, error.mark.column)
        raise RecipeError([*issues, Issue(str(error), (), mark, error.hint, code=error.code)]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML builds a character from "\U00110000" without a range check
        place = loader.get_mark()
        mark = locate(place.line, place.column)
        raise RecipeError([*issues, Issue(f"invalid YAML: {error}", (), mark, code="MIM-C013")]) from None
    finally:
        loader.dispose()


def _syntax_issue(error: yaml.MarkedYAMLError, locate: Locate) -> Issue:
    """Return PyYAML's own message with our position, and where the enclosing construct started."""
    problem = " ".join(part for part in (error.problem, error.context) if part is not None)
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    at = None if mark is None else locate(mark.line, mark.column)
    first = None if context is None or context is mark else locate(context.line, context.column)
    hint = next((hint for words, hint in _HINTS.items() if words in problem), None)
    message = f"invalid YAML: {problem}"
    return Issue(message, (), at, hint, first, code="MIM-C014", first_note="started here")


@dataclass(slots=True)
class _Constructor:
    """Builds the tree of composed nodes.

    Explicit tags are those written in the text, by the id of their node.
    """

    locate: Locate
    issues: list[Issue]
    explicit_tags: dict[int, str]
    num_nodes: int = 0
    enclosing: list[int] = field(default_factory=list)

    def construct(self, node: yaml.Node, at: NodePosition) -> tuple[Any, FilePosition]:
        """Return a node's value and position; `at` has its path, and its key's position if it has one."""
        mark = self._position(node)
        self._check_limits(node, at, mark)
        if (tag := self.explicit_tags.get(id(node))) is not None:
            shown = clipped(tag.replace("tag:yaml.org,2002:", "!!"))
            hint = "remove it; put quotes around a value that must be text"
            self._report(f"tags such as `{shown}` are not allowed", at.path, mark, "MIM-C015", hint)
        if isinstance(node, yaml.ScalarNode):
            if at.key is not None and node.value == "" and node.style is None:
                mark = at.key  # an empty value is shown at its key
            return self._scalar(node, at.path, mark, tagged=tag is not None), mark
        if at.key is not None and at.key.line < mark.line:
            mark = at.key  # a block is shown at the key above it
        self.enclosing.append(id(node.value))
        build = self._map if isinstance(node, yaml.MappingNode) else self._list
        value = build(node, at._replace(value=mark))
        self.enclosing.pop()
        return value, mark

    def _check_limits(self, node: yaml.Node, at: NodePosition, mark: FilePosition) -> None:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} values, with each alias counted at its full size"
            self._fail(message, mark, "MIM-C016")
        if id(node.value) in self.enclosing:
            self._fail("this alias is inside its own anchor", mark, "MIM-C017")
        if len(at.path) > MAX_DEPTH:
            self._fail(_too_deep(), mark, "MIM-C010")

    def _map(self, node: Any, at: NodePosition) -> Map:
        tree = Map(at)
        for key_node, value_node in node.value:
            key, mark = self._key(key_node, at.path), self._position(key_node)
            below = NodePosition(at.path if key is None else (*at.path, key), None, mark)
            value, value_mark = self.construct(value_node, below)
            if key is None:
                continue
            if key in tree:
                message = f"the key `{clipped(key)}` is given twice"
                first = tree.spots[key].key
                self.issues.append(
                    Issue(message, below.path, mark, "remove one of the two", first, code="MIM-C018")
                )
            else:
                tree.put(key, value, below._replace(value=value_mark))
        return tree

    def _list(self, node: Any, at: NodePosition) -> List:
        entries = List(at)
        for index, item in enumerate(node.value):
            below = NodePosition((*at.path, index))
            value, mark = self.construct(item, below)
            entries.add(value, below._replace(value=mark, key=mark))
        return entries

    def _key(self, node: yaml.Node, path: tuple[Step, ...]) -> str | None:
        """Return a key, or None and note why it is not valid."""
        mark = self._position(node)
        if not isinstance(node, yaml.ScalarNode):
            self.construct(node, NodePosition(path))
            hint = "put quotes around a text with braces" if isinstance(node, yaml.MappingNode) else None
            message = "keys must be text, found a map or a list"
            self._report(message, path, mark, "MIM-C019", hint)
            return None
        plain = node.style is None
        if plain and node.value == "<<":
            hint = "inherit from another arm or file with `extends`, or repeat the keys"
            self._report("merge keys (`<<`) are not supported", path, mark, "MIM-C020", hint)
            return None
        value, _ = self.construct(node, NodePosition(path))
        if isinstance(value, str):
            return value
        if plain and node.value == "":
            self._report("a key is missing before the `:`", path, mark, "MIM-C021")
        else:
            hint = f"put it in quotes: '{node.value}'; in braces, a comma ends the value before it"
            self._report(f"keys must be text, found {node.value}", path, mark, "MIM-C019", hint)
        return None

    def _scalar(
        self, node: yaml.ScalarNode, path: tuple[Step, ...], mark: FilePosition, *, tagged: bool
    ) -> Any:
        text: str = node.value
        if not is_unicode(text):
            self._report("this text contains half of a Unicode surrogate pair", path, mark, "MIM-C022")
            return ""
        if node.style is not None or tagged:
            return text
        try:
            return parse_scalar(text)
        except ValueError as error:
            hint = "put it in quotes if it is meant as text"
            self._report(str(error), path, mark, "MIM-C023", hint)
            return 0

    def _position(self, node: yaml.Node) -> FilePosition:
        return self.locate(node.start_mark.line, node.start_mark.column)

    def _report(
        self, message: str, path: tuple[Step, ...], mark: FilePosition, code: str, hint: str | None = None
    ) -> None:
        self.issues.append(Issue(message, path, mark, hint, code=code))

    def _fail(self, message: str, mark: FilePosition, code: str) -> NoReturn:
        raise RecipeError([*self.issues, Issue(message, (), mark, code=code)])
