"""`mimetic ls`: list recipes, the types a recipe may name, and studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli.console import Root, console, example, pluralize, print_item
from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.config.registry import Component

EPILOG = example(
    """  $ mimetic ls recipes
  recipes (mimetic new FILE --from NAME)
  …
    quickstart                   The first run: three …

  $ mimetic ls match_default
  scale `match_default`: Give a filter the energy of …
    gain             …"""
)


def ls(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]", help="`recipes`, `studies`, a family of types, or a type.", show_default=False
        ),
    ] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """List shipped recipes, the types a recipe may name with their arguments, and studies."""
    from mimetic.config.registry import families, registered

    known = families()
    if what in {None, "recipes"}:
        _list_recipes()
    if what in {None, "studies"}:
        _list_studies(root)
    for family in known if what is None else [what] if what in known else []:
        _list_family(family, registered(family))
    owners = [family for family in known if what in registered(family)]
    for family in owners:
        _list_type(f"{family} `{what}`", registered(family)[str(what)])
    if what not in {None, "recipes", "studies", *known} and not owners:
        names = ["recipes", "studies", *known, *(name for family in known for name in registered(family))]
        hint = did_you_mean(str(what), names, count=3) or f"try {', '.join(names[:9])}"
        raise UserError(f"nothing is called `{what}`; {hint}", code="MIM-X030")


def _list_recipes() -> None:
    from mimetic.recipe.shipped import shipped

    out = console()
    out.print("recipes (mimetic new FILE --from NAME)")
    for name, path in shipped().items():
        print_item(out, name, _headline(path), width=28)


def _headline(path: Path) -> str:
    """Return the first line of a recipe's header comment that is not the editor's modeline."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""


def _list_studies(root: Path) -> None:
    from mimetic.study.layout import read_record, studies

    out = console()
    found = list(studies(root))
    out.print(f"studies below {root}" if found else f"no studies below {root}", soft_wrap=True)
    for folder in found:
        try:
            record = read_record(folder)
        except UserError as error:  # one damaged study hides no other
            out.print(f"  {error}", soft_wrap=True)
            continue
        arms, seeds = pluralize(len(record["arms"]), "arm"), pluralize(len(record["seeds"]), "seed")
        out.print(f"  {folder}  {arms} × {seeds}", soft_wrap=True)


def _list_family(family: str, types: "dict[str, type[Component]]") -> None:
    out = console()
    out.print(family)
    for name, section in types.items():
        print_item(out, name, _first_line(section.__doc__), width=18)


def _list_type(name: str, section: "type[Component]") -> None:
    """Print a type with its arguments and their defaults."""
    out = console()
    out.print(f"{name}: {_first_line(section.__doc__)}")
    for key, field in section.model_fields.items():
        if key != "type":
            default = "" if field.is_required() else repr(field.get_default(call_default_factory=True))
            print_item(
                out, key, f"{field.description} ({f'default {default}' if default else 'required'})", width=16
            )


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text else ""
