"""`mimetic ls`: list recipes, the sections and types a recipe may have, and studies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli import completion
from mimetic.cli.console import Json, Root, console, example, print_item, print_json, print_wrapped
from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.printable import pluralize
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from rich.console import Console

    from mimetic.config.base import Section
    from mimetic.covariance.atlas import Entry
    from mimetic.study.listing import StudySummary

EPILOG = example(
    """  $ mimetic ls recipes
  recipes (mimetic new FILE --from NAME)
  …
    quickstart                   The first run: three …

  $ mimetic ls train
  section `train`: How a network is trained.
    epochs           Passes … (whole number ≥ 0; default 10)
  …
    optimizer        … (type of optimizer; default adamw)
  …

  $ mimetic ls match_default
  scale `match_default`: Give a filter the energy of …
    gain             … (number > 0; default 1.0)

  $ mimetic ls studies
  studies below mlruns
    mlruns/studies/quickstart/20261121-032523  3 arms × 3 seeds, 9 FINISHED"""
)


def ls(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="`recipes`, `studies`, `atlas`, `sections`, a section (`train`), a family or a type.",
            show_default=False,
            autocompletion=completion.names,
        ),
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """List shipped recipes, what recipes may have with allowed values and defaults, and studies."""
    found = _sections(what)
    items = {name: listed() for name, listed in _ITEMS.items() if what in {None, name}}
    studies = _studies(root) if what in {None, "studies"} else ()
    if as_json:
        print_json(_record(what, items, studies, found))
        return
    out = console()
    for name, entries in items.items():
        out.print(_HEADINGS[name])
        for entry, text in entries.items():
            print_item(out, entry, text, width=28)
    if what in {None, "studies"}:
        _print_studies(out, root, studies)
    for group, types in found.items():
        _print_group(out, group, types, is_whole=what in {None, group})


def _sections(what: str | None) -> "dict[str, Mapping[str, type[Section]]]":
    """Return the sections and types to list, by group.

    Raises:
        UserError: If nothing is called so.
    """
    from mimetic.config.registry import families, registered
    from mimetic.recipe.reference import sections

    known: dict[str, Mapping[str, type[Section]]] = {"sections": sections()}
    known |= {family: registered(family) for family in families()}
    found = {
        group: types if what in {None, group} else {what: types[what]}
        for group, types in known.items()
        if what is None or what == group or what in types
    }
    others = ("studies", *_ITEMS)
    if not found and what not in others:
        names = list(dict.fromkeys((*others, *known, *(name for types in known.values() for name in types))))
        hint = did_you_mean(str(what), names, count=3) or f"try {', '.join(names[:9])}"
        raise UserError(f"nothing is called `{what}`; {hint}", code="MIM-X030")
    return found


def _recipes() -> dict[str, str]:
    from mimetic.recipe.shipped import shipped

    return {name: _headline(path) for name, path in shipped().items()}


def _atlas() -> dict[str, str]:
    from mimetic.covariance.atlas import atlas

    return {name: _title(entry) for name, entry in atlas().items()}


def _title(entry: "Entry") -> str:
    """Return the title of an entry, or what is wrong with its card."""
    try:
        return entry.card.title
    except UserError as error:
        return f"{error} [{error.code}]"


_ITEMS = {"recipes": _recipes, "atlas": _atlas}
_HEADINGS = {
    "recipes": "recipes (mimetic new FILE --from NAME)",
    "atlas": "atlas (covariance: {type: atlas, name: NAME}; mimetic show atlas:NAME says what NAME is for)",
}


def _record(
    what: str | None,
    items: Mapping[str, Mapping[str, str]],
    studies: "Sequence[StudySummary]",
    found: "Mapping[str, Mapping[str, type[Section]]]",
) -> dict[str, object]:
    """Return what is listed as plain values; groups that are not listed are left out."""
    from mimetic.recipe.reference import first_line, keys_of

    record: dict[str, object] = {name: dict(entries) for name, entries in items.items()}
    if what in {None, "studies"}:
        record["studies"] = [asdict(study) for study in studies]
    described = {
        group: {
            name: {
                "description": first_line(section.__doc__),
                "keys": {key: asdict(about) for key, about in keys_of(section).items()},
            }
            for name, section in types.items()
        }
        for group, types in found.items()
    }
    if "sections" in described:
        record["sections"] = described.pop("sections")
    return record | ({"types": described} if described else {})


def _studies(root: Path) -> "tuple[StudySummary, ...]":
    from mimetic.study.listing import summaries  # imports numpy, which the rest does without

    return tuple(summaries(root))


def _print_studies(out: "Console", root: Path, studies: "Sequence[StudySummary]") -> None:
    """Print each study with its trials by status, and its result."""
    out.print(f"studies below {root}" if studies else f"no studies below {root}", soft_wrap=True)
    for study in studies:
        if study.statuses is None:
            print_wrapped(out, f"  {study.error}")
            continue
        size = f"{pluralize(len(study.arms), 'arm')} × {pluralize(len(study.seeds), 'seed')}"
        trials = ", ".join(f"{count} {status}" for status, count in study.statuses.items())
        trials += f", {pluralize(len(study.stopped), 'arm')} stopped early" if study.stopped else ""
        result = "" if study.result is None else f"; {study.result}"
        print_wrapped(out, f"  {study.folder}  {size}, {trials}{result}")


def _print_group(out: "Console", group: str, types: "Mapping[str, type[Section]]", *, is_whole: bool) -> None:
    """Print sections or types with a line each, or one with its keys, allowed values and defaults."""
    from mimetic.recipe.reference import default_text, first_line, keys_of

    if is_whole:
        out.print(group)
        for name, section in types.items():
            print_item(out, name, first_line(section.__doc__), width=18)
        return
    for name, section in types.items():
        noun = "section" if group == "sections" else group
        print_wrapped(out, f"{noun} `{name}`: {first_line(section.__doc__)}")
        for key, about in keys_of(section).items():
            default = "required" if about.required else f"default {default_text(about.default)}"
            print_item(out, key, f"{about.description.rstrip('.')} ({about.allowed}; {default})", width=16)


def _headline(path: Path) -> str:
    """Return the first line of a recipe's header comment that is not the editor's modeline."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""
