"""The path of an arm or a stage, with which later checks report errors at their line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mimetic.config.errors import FilePosition, Issue, Step

Among = Literal["arms", "stages"]


def _nowhere(*_keys: Step) -> FilePosition | None:
    return None


@dataclass(frozen=True, slots=True)
class ConfigPath:
    """The path of an arm or a stage; by default the only arm of a recipe without a file.

    `where` returns the file position of the value at a path.
    """

    among: Among = "arms"
    name: str = "main"
    where: Callable[..., FilePosition | None] = _nowhere

    def __str__(self) -> str:
        return f"{self.among.removesuffix('s')} `{self.name}`"

    def mark(self, *keys: Step) -> FilePosition | None:
        """Return the position of a value below it, rules by index or id: `mark("init", "filters")`."""
        return self.where(self.among, self.name, *keys)

    def issue(self, message: str, *keys: Step, hint: str | None = None, code: str = "") -> Issue:
        """Return an issue with a value below it."""
        return Issue(message, (self.among, self.name, *keys), self.mark(*keys), hint, code=code)


MAIN = ConfigPath()
