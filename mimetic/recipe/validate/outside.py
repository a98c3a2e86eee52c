"""What a recipe would read, download or run: everything that `mimetic validate --untrusted` refuses."""

from collections.abc import Iterator, Mapping

from mimetic.config.base import Section
from mimetic.config.errors import Issue, Step
from mimetic.recipe.recipe import Recipe

_OUTSIDE = {
    "call": "runs code",
    "download": "downloads data",
    "root": "names a folder",
    "path": "names a file or a folder",
    "file": "names a file of statistics",
    "checkpoint": "names a file of weights",
    "tensors": "names a file of weights",
    "trial": "names the folder of a trial",
    "run": "fetches a run",
    "weights": "downloads weights",
}
"""Keys of sections by which a recipe reaches outside of itself."""

_HINT = "without --untrusted it is allowed: read the recipe before"


def outside_issues(recipe: Recipe) -> list[Issue]:
    """Return an issue for each value by which a recipe reaches outside of itself."""
    return [
        at.issue(f"{at} {_OUTSIDE[str(path[-1])]}", *path, hint=_HINT, code="MIM-R037")
        for at in recipe.addresses()
        for path in _outside(recipe.section(at), ())
    ]


def _outside(value: object, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the paths of text, or of `true`, under such a key."""
    if isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            key, inner = name if field.alias is None else field.alias, getattr(value, name)
            if key in _OUTSIDE and (isinstance(inner, str) or inner is True):
                yield (*path, key)
            else:
                yield from _outside(inner, (*path, key))
    elif isinstance(value, tuple | list | Mapping):
        for step, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _outside(entry, (*path, step))
