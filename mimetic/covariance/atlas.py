"""The atlas: covariance files by name, each with a card that describes its origin. No torch.

An entry NAME is two files, `NAME.safetensors` as `mimetic harvest` writes it and its card `NAME.json`. Those
in this package come first; the folders in the environment variable `MIMETIC_ATLAS` follow, separated as in
`PATH`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from mimetic.config.base import Section
from mimetic.config.suggest import did_you_mean, listed
from mimetic.errors import UserError
from mimetic.files import read_regular

VARIABLE = "MIMETIC_ATLAS"
_SHIPPED = Path(__file__).parent.parent / "atlas"


class Card(Section):
    """Contents and origin of an entry of the atlas."""

    title: str = Field(max_length=200, description="One line: which covariances of which network.")
    network: str = Field(description="Architecture, with width, depth and kernel.")
    data: str = Field(description="What the network was trained on.")
    training: str = Field(description="How it was trained, and how good it is.")
    license: str = Field(description="License of the weights.")
    source: str = Field(description="Where the weights are from.")
    command: str = Field(description="Command that made the file.")
    results: str = Field("", description="What it gave as an initialization, with the study.")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the atlas: its name and its two files."""

    name: str
    path: Path

    @property
    def card(self) -> Card:
        """Return the card.

        Raises:
            UserError: If it is missing or malformed.
        """
        path = self.path.with_suffix(".json")
        try:
            return Card.model_validate_json(read_regular(path))
        except OSError as error:
            raise UserError(
                f"{path}: the card cannot be read ({error.strerror}); add it beside the file, with the "
                f"fields {listed(Card.model_fields)}",
                code="MIM-V303",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"{path}: {where}: {first['msg']}; a card has the fields {listed(Card.model_fields)}",
                code="MIM-V302",
            ) from error


def atlas() -> dict[str, Entry]:
    """Return the entries by name; one of the package hides others of its name."""
    found: dict[str, Entry] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.safetensors")):
            found.setdefault(path.stem, Entry(path.stem, path))
    return found


def find_entry(name: str) -> Entry:
    """Return the entry of a name.

    Raises:
        UserError: If there is none; names the nearest.
    """
    entries = atlas()
    if name not in entries:
        hint = did_you_mean(name, entries) or f"it has {listed(entries, 8)}"
        raise UserError(
            f"the atlas has no entry `{name}`; {hint}; folders in {VARIABLE} are searched, too",
            code="MIM-V301",
        )
    return entries[name]


def _folders() -> Iterator[Path]:
    yield _SHIPPED
    for text in os.environ.get(VARIABLE, "").split(os.pathsep):
        if text:
            yield Path(text).expanduser()
