"""The record of a study, `study.json`: what it was planned from, and what halving decided.

A study may come from a stranger, and names become paths: a record is checked when it is read.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mimetic.config.base import Name
from mimetic.errors import UserError
from mimetic.files import JsonObject, parse_json, read_regular, write_text
from mimetic.printable import pluralize

RECORD = "study.json"

Seed = Annotated[int, Field(ge=0, strict=True)]
Mean = Annotated[float, Field(strict=True)]


@dataclass(frozen=True, slots=True)
class Rung:
    """What successive halving decided after a rung.

    Attributes:
        metric: The metric of validation data.
        seeds: The seeds so far.
        means: Mean over them by arm, in the metric's display unit, of the arms that competed.
        stopped: The arms that stopped.
    """

    metric: str
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    means: dict[str, Mean]
    stopped: tuple[Name, ...]

    def __str__(self) -> str:
        """Return it in one line, e.g. `after 1 seed a stopped (val/acc: a 93.1, b 95)`."""
        means = ", ".join(f"{arm} {value:.4g}" for arm, value in self.means.items())
        count = pluralize(len(self.seeds), "seed")
        return f"after {count} {', '.join(self.stopped) or 'no arm'} stopped ({self.metric}: {means})"


def _with_means(rung: Rung) -> Rung:
    if not set(rung.stopped) <= set(rung.means):
        raise ValueError("an arm stopped that did not compete")
    return rung


class StudyRecord(BaseModel):
    """What is known of a study beside its recipe, plans and journals; later entries have defaults.

    Attributes:
        recipe: Name of the recipe.
        source: Path of its file; None for a recipe that is none, empty if unknown.
        arms: Names of the arms.
        seeds: The seeds.
        baseline: The arm that the others are compared with.
        metric: What they are compared by.
        data: Digest of the examples of each arm and stage, by `arms/name` and `stages/name`.
        contents: Arm → digests of what its trials depend on; see `mimetic.study.contents`.
        revisions: What changed, each time that the study followed its recipe.
        halving: The decisions of successive halving, the first rung first.
        host: Name of the machine that started it.
        environment: Versions, machine and commit.
    """

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    recipe: str = ""
    source: str | None = ""
    arms: tuple[Name, ...]
    seeds: tuple[Seed, ...]
    baseline: str
    metric: str
    data: dict[str, str] = {}
    contents: dict[str, dict[str, str]] = {}
    revisions: tuple[JsonObject, ...] = ()
    halving: tuple[Annotated[Rung, AfterValidator(_with_means)], ...] = ()
    host: str = ""
    environment: dict[str, str] = {}


def write_record(folder: Path, record: StudyRecord) -> None:
    """Write the record of a study; its results are in the journals."""
    write_text(folder / RECORD, json.dumps(record.model_dump(), indent=2, sort_keys=True) + "\n")


def read_record(folder: Path) -> StudyRecord:
    """Read the record of a study.

    Raises:
        UserError: If the folder has no readable record.
    """
    path = folder / RECORD
    try:
        return StudyRecord.model_validate(parse_json(read_regular(path)))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not the folder of a study: it has no {RECORD}", code="MIM-Y113"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is damaged: not the record of a study ({where}: {first['msg']}); restore it",
            code="MIM-Y115",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", code="MIM-Y114") from None
