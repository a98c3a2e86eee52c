"""Arguments that a recipe may give the constructors of libraries, whoever wrote the recipe."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from mimetic.config.base import Arguments, validation_error

_TRAINED = frozenset({"checkpoint", "pretrained", "weights"})
_OUTSIDE = _TRAINED | {"cfg", "dir", "file", "hub", "overlay", "path", "url"}
"""Words in the name of an argument that lets a constructor read, download or write something."""

_FIELDS = {"num_classes": "num_classes", "in_chans": "in_channels", "in_channels": "in_channels"}
"""Arguments that are keys of the section."""


def _require_inside(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse weights, paths, URLs and configurations, and the keys of the section."""
    for name, value in arguments.items():
        if name in _FIELDS:
            raise validation_error(
                f"`{name}` is no key of `args`",
                code="MIM-M003",
                at=(name,),
                hint=f"write `{_FIELDS[name]}: {value}` beside `name`",
            )
        if value in (None, False) or not _reaches_outside(name, value):
            continue
        if _TRAINED.intersection(name.split("_")):
            raise validation_error(
                f"`{name}: {value}` would download trained weights",
                code="MIM-M002",
                at=(name,),
                hint="leave it out: models are initialized here",
            )
        raise validation_error(
            f"a recipe may not set `{name}`: the constructor could read, download or write something by it",
            code="MIM-M010",
            at=(name,),
            hint="build the model in Python: `type: python`, and --allow-code",
        )
    return arguments


def _reaches_outside(name: str, value: object) -> bool:
    """Return whether an argument, or an entry of it, names something outside the model."""
    words = set(name.lower().replace("drop_path", "drop").split("_"))  # the rate of stochastic depth
    if words & _OUTSIDE:
        return True
    if isinstance(value, Mapping):
        return any(_reaches_outside(str(key), entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return any(_reaches_outside("", entry) for entry in value)
    return isinstance(value, str) and (
        "://" in value or value.startswith(("/", "~", "hf-hub:", "local-dir:"))
    )


ConstructorArguments = Annotated[Arguments, AfterValidator(_require_inside)]
"""Arguments for the constructor of a library, none by which it would reach outside of the process."""
