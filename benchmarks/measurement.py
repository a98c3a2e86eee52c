"""What a measurement is: a function of options that returns tables of plain numbers.

    @measurement(takes="1 min", images=64)
    def ceiling(options: CeilingOptions) -> Result:
        '''Measure …'''

The function's name and the first line of its docstring are what the command line shows. The options are a
frozen dataclass of flags; further arguments of the decorator replace their defaults under `--dry`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from mimetic.study.environment import environment
from mimetic.train.devices import pick_device

ROOT = Path(__file__).parents[1]
RESULTS, DRY_RESULTS = ROOT / "benchmarks" / "results", ROOT / "build" / "benchmarks"

Cell = str | int | float | None | Sequence[float]
"""A word, a number, nothing, or the ends of a range."""


# --------------------------------------------------------------------------------------------- options
def option(default: Any, help: str = "", choices: Sequence[str] = ()) -> Any:  # noqa: A002 (argparse's word)
    """Return a field that becomes a flag; its type is that of the default."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Flags that every measurement has."""

    threads: int = option(1, "threads of torch in each process")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceOptions(Options):
    """Flags of a measurement that runs on any device."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")

    @property
    def where(self) -> torch.device:
        """Return the device."""
        return pick_device(self.device)


# --------------------------------------------------------------------------------------------- results
@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and how numbers are printed (`.2f`, `.1%`, `,d`); words without a format."""

    name: str
    format: str = ""

    def text(self, cell: Cell) -> str:
        """Return a cell as text."""
        if cell is None:
            return "–"
        if isinstance(cell, str):
            return cell
        if isinstance(cell, Sequence):
            return " – ".join(format(value, self.format) for value in cell)
        return format(cell, self.format)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain values under columns."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]
    title: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown; numbers are aligned to the right."""
        lines = [[column.name for column in self.columns]]
        lines += [["---:" if column.format else "---" for column in self.columns]]
        lines += [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{self.title}\n\n{body}" if self.title else body


@dataclass(frozen=True, slots=True)
class Result:
    """What a measurement found.

    Attributes:
        tables: Its numbers.
        notes: What else was found.
        failures: Bounds that were missed and parts that failed; the exit code is 1 if there are any.
        machine: Where it was measured, in words.
        command: The command that measured it.
        environment: Versions, machine, commit and time.
        transcribed: Whether the numbers were copied from an earlier page and not written by the command.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    machine: str = ""
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    transcribed: bool = False

    def markdown(self) -> str:
        """Return the result as a page shows it."""
        transcribed = " (transcribed from an earlier page)" if self.transcribed else ""
        origin = f"`{self.command}` — {self.machine}{transcribed}."
        return "\n\n".join(
            [origin, *(table.markdown() for table in self.tables), *self.notes, *self.failures]
        )

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` wrote."""
        found = json.loads(path.read_text(encoding="utf-8"))
        tables = [
            Table(tuple(Column(**column) for column in table["columns"]), table["rows"], table["title"])
            for table in found.pop("tables")
        ]
        return cls(tables=tuple(tables), **found)


def surroundings(options: Options) -> tuple[str, dict[str, str]]:
    """Return where a measurement ran: a sentence, and versions, machine, commit and time."""
    found = environment() | {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "threads": str(options.threads)}
    cuda = isinstance(options, DeviceOptions) and options.where.type == "cuda"
    found["device"] = torch.cuda.get_device_name(options.where) if cuda else found.get("processor", "CPU")
    words = [found["device"], f"{options.threads} thread(s) per process", f"torch {torch.__version__}"]
    return ", ".join([*words, found["date"]]), found


# --------------------------------------------------------------------------------------------- measurement
@dataclass(frozen=True, slots=True)
class Measurement:
    """An entry of the list.

    Attributes:
        run: The function.
        options: The dataclass of its flags.
        takes: How long it takes, in words.
        dry: Values of the flags under `--dry`.
    """

    run: Callable[[Any], Result]
    options: type[Options]
    takes: str
    dry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the name on the command line."""
        return self.run.__name__

    @property
    def description(self) -> str:
        """Return one line."""
        return (self.run.__doc__ or "").partition("\n")[0].rstrip(".")


def measurement(*, takes: str, **dry: Any) -> Callable[[Callable[[Any], Result]], Measurement]:
    """Make a function of options a measurement; further arguments are its options under `--dry`."""

    def wrap(function: Callable[[Any], Result]) -> Measurement:
        (parameter,) = signature(function).parameters.values()
        return Measurement(function, parameter.annotation, takes, dry)

    return wrap
