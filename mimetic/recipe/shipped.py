"""The recipes that come with mimetic."""

from pathlib import Path


def folder() -> Path:
    """Return the folder of shipped recipes: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Return the shipped recipes by name: the path below the folder, without `.yaml`."""
    root = folder()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
