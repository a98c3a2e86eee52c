"""Where an error of the schema lies in the tree: its location followed key by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from mimetic.config.errors import Step
from mimetic.config.registry import TAG
from mimetic.config.text.tree import List, Map, NodePosition
from mimetic.recipe.reading.grammar import Place, fields_of


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of the schema, and how far its location could be followed in the tree.

    Attributes:
        node: The value there.
        spot: Where it was written.
        kind: What the language allows there.
        field: The field whose value it is.
        rest: Steps of the location that lead to nothing that was written.
        error: What pydantic says.
        choice: Location of the value that may have several forms, where the error speaks of one of them.
    """

    node: Any
    spot: NodePosition
    kind: Place
    field: FieldInfo | None
    rest: tuple[Step, ...]
    error: Mapping[str, Any]
    choice: tuple[Step, ...] | None = None

    @property
    def found(self) -> Any:
        """Return the value the schema refused, after shorthands were written out."""
        return self.error["input"]

    @property
    def limits(self) -> Mapping[str, Any]:
        """Return what the schema says of the bound that was crossed."""
        return self.error.get("ctx", {})  # type: ignore[no-any-return]


def follow(error: Mapping[str, Any], tree: Map, root: Place) -> Fault:
    """Return an error of pydantic with the value, the spot and the place its location leads to.

    Steps that name a choice by `type`, or one of several forms a value may have, lead nowhere in the tree
    and are passed over; a location that leads into the written-out form of a shorthand ends at the shorthand.
    """
    node: Any = tree
    spot, kind, field = tree.here, root, None
    location: tuple[Step, ...] = error["loc"]
    choice: tuple[Step, ...] | None = None
    rest: tuple[Step, ...] = ()
    for index, step in enumerate(location):
        kind = kind.chosen(node)
        last = index == len(location) - 1
        if (
            isinstance(step, str)
            and step.startswith(TAG)
            and not (last and error["type"] == "extra_forbidden")
        ):
            continue
        if last and error["type"] in _OF_KEYS:
            rest = (step,)
        elif isinstance(node, Map) and isinstance(step, str) and step in node:
            field = None if kind.section is None else fields_of(kind.section).get(step)
            node, spot, kind = node[step], node.spots[step], kind.below(step)
        elif isinstance(node, List) and isinstance(step, int) and 0 <= step < len(node):
            node, spot, kind = node[step], node.spots[step], kind.below(step)
        elif kind.forms > 1 and choice is None:
            choice = location[:index]
        elif last or step == "[key]":
            rest = location[index:]
            break
    return Fault(node, spot, kind.chosen(node), field, rest, error, choice)


_OF_KEYS = ("extra_forbidden", "missing")
