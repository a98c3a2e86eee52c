"""`mimetic ls`: what there is: recipes, types a recipe may name, studies."""

from pathlib import Path
from typing import Annotated

import typer

from mimetic.cli.console import Root, console, counted, example
from mimetic.config.registry import families, registered
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

EPILOG = example(
    """  $ mimetic ls recipes
  recipes (mimetic new FILE --from NAME)
  …
    quickstart                   The first run: three beginnings of a small ConvMixer …

  $ mimetic ls match_default
  scale `match_default`: Give a filter the energy of PyTorch's own default, …
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
    if what is None or what == "recipes":
        _recipes()
    if what is None or what == "studies":
        _studies(root)
    if what in ("recipes", "studies"):
        return
    if what is None:
        for family in families():
            _family(family)
    elif what in families():
        _family(what)
    elif not _type(what):
        from difflib import get_close_matches

        names = ["recipes", "studies", *families(), *(n for f in families() for n in registered(f))]
        close = get_close_matches(what, names, n=3)
        hint = (
            f"; did you mean {' or '.join(f'`{n}`' for n in close)}?"
            if close
            else f": try {', '.join(names[:9])}"
        )
        raise UserError(f"nothing is called `{what}`{hint}")


def _recipes() -> None:
    from mimetic.recipe.shipped import shipped

    out = console()
    out.print("recipes (mimetic new FILE --from NAME)")
    for name, path in shipped().items():
        out.print(f"  {name:<28} {_headline(path)}")


def _headline(path: Path) -> str:
    """Return the first line of a recipe's header comment that is not the editor's modeline."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""


def _studies(root: Path) -> None:
    from mimetic.study.layout import read_record, studies

    out = console()
    found = list(studies(root))
    out.print(f"studies below {root}" if found else f"no studies below {root}")
    for folder in found:
        try:
            record = read_record(folder)
        except UserError as error:  # one damaged study hides no other
            out.print(f"  {error}", soft_wrap=True)
            continue
        arms, seeds = counted(len(record["arms"]), "arm"), counted(len(record["seeds"]), "seed")
        out.print(f"  {folder}  {arms} × {seeds}")


def _family(family: str) -> None:
    out = console()
    out.print(family)
    for name, section in registered(family).items():
        out.print(f"  {name:<18} {_first_line(section.__doc__)}")


def _type(name: str) -> bool:
    out = console()
    found = False
    for family in families():
        section = registered(family).get(name)
        if section is None:
            continue
        found = True
        out.print(f"{family} `{name}`: {_first_line(section.__doc__)}")
        for key, field in section.model_fields.items():
            if key != "type":
                default = (
                    "required"
                    if field.is_required()
                    else f"default {field.get_default(call_default_factory=True)!r}"
                )
                out.print(f"  {key:<16} {field.description} ({default})")
    return found


def _first_line(text: str | None) -> str:
    return text.strip().splitlines()[0] if text else ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=EPILOG, short_help="List recipes, types and studies.")(ls)
