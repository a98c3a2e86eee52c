"""Values that a shell completes: without torch, and nothing where something is wrong."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer

from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

Completer = Callable[[typer.Context, str], list[str]]


def _completer(values: Callable[[typer.Context], Iterable[str]]) -> Completer:
    """Return a completer of the values that start with what is typed."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [value for value in values(ctx) if value.startswith(incomplete)]
        except (UserError, OSError):
            return []

    return complete


@_completer
def arms(ctx: typer.Context) -> Iterable[str]:
    """Complete the arms of the recipe before them."""
    from mimetic.recipe.load import load

    words = [ctx.params.get("recipe"), *ctx.args]  # after an option without its value, all are in `args`
    path = next((word for word in words if isinstance(word, str | Path)), None)
    return () if path is None else load(path).arms


@_completer
def models(_ctx: typer.Context) -> Iterator[str]:
    """Complete types of models, a colon after those that need a name."""
    from mimetic.config.registry import registered
    from mimetic.models.config import Model

    for name, section in registered("model").items():
        assert issubclass(section, Model)
        yield name if section.argument is None else f"{name}:"


@_completer
def data(_ctx: typer.Context) -> Iterable[str]:
    """Complete types of data."""
    from mimetic.config.registry import registered

    return registered("data")


@_completer
def shipped(_ctx: typer.Context) -> Iterable[str]:
    """Complete shipped recipes."""
    from mimetic.recipe.shipped import shipped as recipes

    return recipes()


@_completer
def studies(ctx: typer.Context) -> Iterable[str]:
    """Complete recipes that have studies below the root."""
    from mimetic.study.layout import studies as folders

    root = ctx.params.get("root")
    found = folders(Path(root) if isinstance(root, str | Path) else DEFAULT_ROOT)
    return dict.fromkeys(folder.parent.name for folder in found)


@_completer
def names(_ctx: typer.Context) -> Iterable[str]:
    """Complete what `mimetic ls` lists."""
    from mimetic.config.registry import families, registered
    from mimetic.recipe.reference import sections

    types = (name for family in families() for name in registered(family))
    return dict.fromkeys(("recipes", "studies", "sections", *sections(), *families(), *types))
