"""What changed between two recipes of a study, as values, and whether the study can follow."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from mimetic.printable import truncate
from mimetic.recipe.dump import values_of
from mimetic.recipe.recipe import Recipe

_MAX_LENGTH = 60


class _Absent(Enum):
    ABSENT = "none"


ABSENT = _Absent.ABSENT
"""In place of a value that one of the recipes does not have."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs; the path has the keys that lead to it, rules by id."""

    path: tuple[str, ...]
    before: object
    after: object

    def __str__(self) -> str:
        """Return it in one line, e.g. `arms.a.train.epochs: 4 → 6`."""
        path = ".".join(self.path)
        if isinstance(self.after, Mapping) and self.before is ABSENT:
            return f"{path}: added"
        if isinstance(self.before, Mapping) and self.after is ABSENT:
            return f"{path}: removed"
        return f"{path}: {_text(self.before)} → {_text(self.after)}"

    def fits(self, *, unchanged: Collection[str], known: Collection[str]) -> bool:
        """Return whether a study can take it over: seeds, whole arms, comparison, execution, longer training.

        `unchanged` are the arms whose change affects no result, `known` those whose trials' content is.
        """
        group, *rest = self.path
        if group not in {"arms", "stages"} or len(rest) == 1:
            return True
        if group == "stages" or rest[0] in unchanged:
            return group == "arms"
        return rest[0] in known and rest[1:] == ["train", "epochs"] and _is_more(self.before, self.after)


def changes(before: Recipe, after: Recipe) -> list[Change]:
    """Return the values in which two recipes differ, in the order of the first."""
    return list(_changes(values_of(before), values_of(after), ()))


def _changes(before: object, after: object, path: tuple[str, ...]) -> Iterator[Change]:
    one, other = _by_key(before), _by_key(after)
    if one is None or other is None:
        if before != after:
            yield Change(path, before, after)
    elif one.get("type") != other.get("type"):  # the other keys are those of another component
        yield Change((*path, "type"), one.get("type", ABSENT), other.get("type", ABSENT))
    else:
        for key in dict.fromkeys((*one, *other)):
            yield from _changes(one.get(key, ABSENT), other.get(key, ABSENT), (*path, key))


def _by_key(value: object) -> Mapping[str, object] | None:
    """Return a map, or a list of maps with ids by id; None for any other value."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) and "id" in item for item in value)
    ):
        return {str(item["id"]): item for item in value}
    return value if isinstance(value, Mapping) else None


def _is_more(before: object, after: object) -> bool:
    return isinstance(before, int) and isinstance(after, int) and after > before


def _text(value: object) -> str:
    if value is ABSENT:
        return "none"
    return truncate(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _MAX_LENGTH)
