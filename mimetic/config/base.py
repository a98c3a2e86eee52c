"""The shared base of every section of a recipe.

Sections are data only: frozen, closed (an unknown key is an error) and strict (a number in quotes is a
string, `true` is not 1). Nothing here imports torch.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Base of all parts of a recipe: frozen, strict, closed."""

    # build validators at the first use, after plug-ins have added their components
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    shorthand: ClassVar[str | None] = None
    """The key whose value a plain text in place of the section is."""

    alternatives: ClassVar[tuple[str, ...]] = ()
    """Keys of which exactly one is given; a later layer with another of them replaces the section."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions and their present names; an old key is an error that names the new one."""

    synonyms: ClassVar[Mapping[str, str]] = {}
    """Words that users try, too unlike the key that they mean to be taken for a typing mistake."""

    expected: ClassVar[str] = "a map"
    """What the section is called in messages about a value of the wrong kind."""


def entries_of(section: Section) -> Iterator[tuple[str, object]]:
    """Yield the values of a section by the keys of the language."""
    for name, field in type(section).model_fields.items():
        yield name if field.alias is None else field.alias, getattr(section, name)


VALIDATION_ERROR = "invalid"
"""Type of the errors that our own validators raise."""


def validation_error(
    message: str,
    *,
    code: str,
    at: tuple[str | int, ...] = (),
    offset: int | None = None,
    hint: str | None = None,
) -> PydanticCustomError:
    """Return an error for a validator to raise.

    Args:
        message: What is wrong.
        code: Stable identifier of the kind of error, e.g. `MIM-R012`.
        at: Keys from the validated value to the one to point at; the validated one itself unless given.
        offset: Character of a text to point at, from 0.
        hint: The repair.
    """
    context = {"message": message, "code": code, "at": at, "offset": offset, "hint": hint}
    return PydanticCustomError(VALIDATION_ERROR, "{message}", context)


def _as_tuple(value: Any) -> Any:
    """Turn a YAML list into a tuple, and leave what is not a list to be rejected."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


FromList = BeforeValidator(_as_tuple)
"""A YAML list as a tuple, since sections are immutable: `Annotated[tuple[int, ...], FromList]`."""


def _first_non_json(value: Any, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """Return the path to the first value that JSON cannot represent, such as nan."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = (_first_non_json(item, (*path, key)) for key, item in items)
        return next((path for path in found if path is not None), None)
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    return None if value is None or isinstance(value, bool | int | str) else path


def _require_json(value: dict[str, Any]) -> dict[str, Any]:
    path = _first_non_json(value)
    if path is not None:
        message = "arguments are text, finite numbers, booleans, null, lists and maps"
        raise validation_error(message, code="MIM-C061", at=path)
    return value


Arguments = Annotated[dict[str, Any], AfterValidator(_require_json)]
"""Arguments for a function that is not ours: any keys, plain values."""

MAX_REGEX = 300
"""Maximum length of a regular expression, in characters."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Names of recipes, arms and stages: they become folder names and MLflow parameters."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


def listed_once(noun: str) -> Callable[[tuple[float, ...]], tuple[float, ...]]:
    """Return a validator that refuses duplicate numbers; `noun` names them in the message."""

    def check(value: tuple[float, ...]) -> tuple[float, ...]:
        for index, number in enumerate(value):
            if number in value[:index]:
                shown = number if isinstance(number, int) else f"{number:g}"
                message = f"the {noun} {shown} is given twice"
                raise validation_error(message, code="MIM-C062", at=(index,), hint="remove one of them")
        return value

    return check
