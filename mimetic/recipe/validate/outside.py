"""What a recipe would read, download or run: everything that `mimetic validate --untrusted` refuses."""

from mimetic.config.base import Section, entries_of
from mimetic.config.errors import Issue
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.stages import values_in

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
        at.issue(f"{at} {_OUTSIDE[key]}", *path, key, hint=_HINT, code="MIM-R037")
        for at in recipe.addresses()
        for path, section in values_in(recipe.section(at), Section)
        for key, value in entries_of(section)
        if key in _OUTSIDE and (isinstance(value, str) or value is True)
    ]
