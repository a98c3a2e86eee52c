"""Which arm or stage of a recipe something is said of, so that a mistake in it is told at its line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mimetic.config.errors import FilePosition, Issue, Step

Among = Literal["arms", "stages"]


def _nowhere(*_keys: Step) -> FilePosition | None:
    return None


@dataclass(frozen=True, slots=True)
class ConfigPath:
    """Where an arm or a stage stands in its recipe; the only arm of a recipe without a file unless given.

    Attributes:
        among: Whether it is an arm or a stage.
        name: Its name.
        where: Looks up the mark of a value by all keys that lead to it.
    """

    among: Among = "arms"
    name: str = "main"
    where: Callable[..., FilePosition | None] = _nowhere

    def __str__(self) -> str:
        return f"{self.among.removesuffix('s')} `{self.name}`"

    def mark(self, *keys: Step) -> FilePosition | None:
        """Return where a value below it was written, rules by index or id: `mark("init", "filters")`."""
        return self.where(self.among, self.name, *keys)

    def issue(self, message: str, *keys: Step, hint: str | None = None, code: str = "") -> Issue:
        """Return a mistake in a value below it."""
        return Issue(message, (self.among, self.name, *keys), self.mark(*keys), hint, code=code)


MAIN = ConfigPath()
