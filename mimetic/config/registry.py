"""Components: everything a recipe chooses by `type:`, each one section that names its implementation.

A *family* is one place of the language where a `type:` may occur. A component joins it by one class:

    class Orthogonal(Init, type="orthogonal", impl="mimetic.initializers.univariate:orthogonal"): ...

Sections import no torch, so a recipe can be validated without it; the function behind `impl` is imported
when it is first used. Built-in and plug-in components register by the same class statement. Plug-ins list
the module of their sections as an entry point of the group `mimetic.components`.
"""

import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from inspect import get_annotations
from types import FrameType
from typing import Any, ClassVar, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mimetic.config.base import Section
from mimetic.errors import RunError, UserError

ROOMS = ("initializers", "covariance", "models", "surgery", "data", "train", "kernels", "study")
"""Rooms whose `config.py` holds components, in the order in which the families are listed."""

PLUGINS = "mimetic.components"
"""Entry point group of the plug-ins."""

Takes = Literal["harvest", "learned", "network", "images"]
"""What a component may be made from beside its own fields, see `Component.takes`."""

_FUNCTION_PATH = re.compile(r"[\w.]+:\w+")


class Component(Section):
    """Base of the sections chosen by `type:`; one subclass with `family=` is the base of each family.

    Class arguments:
        family: Opens a family; given once, by its base class.
        type: Name in recipes; a class without one is an abstract base.
        impl: The function that carries the component out, "module:function"; inherited unless given.
            The protocol of a family's functions is documented beside its base class.
        **hooks: Further functions of a family, "module:function" by name; inherited unless given.
    """

    family: ClassVar[str]
    functions: ClassVar[Mapping[str, str]] = {}
    takes: ClassVar[Takes | None] = None
    """What it is made from beside its own fields: covariances of a trained network, what a learner learned,
    a trained network itself, or training images."""

    example: ClassVar[Mapping[str, object]] = {}
    """Values of the required fields, with which tests and documentation build the component."""

    formerly: ClassVar[tuple[str, ...]] = ()
    """Types that it had in earlier versions; an old one is an error that names the present one."""

    type: str = ""

    def __init_subclass__(cls, *, family: str | None = None, **functions: str) -> None:
        super().__init_subclass__()
        name = functions.pop("type", None)
        for function, path in functions.items():
            if not _FUNCTION_PATH.fullmatch(path):
                raise ValueError(f"{cls.__qualname__}: {function}={path!r}; write 'package.module:function'")
        if family is not None:
            cls.family = family
        cls.functions = {**cls.functions, **functions}
        if name is not None:  # the discriminator is an ordinary field, listed first
            cls.__annotations__ = {"type": Literal[name], **get_annotations(cls)}
            cls.type = name

    @classmethod
    def __pydantic_init_subclass__(cls, **arguments: Any) -> None:
        super().__pydantic_init_subclass__()
        if arguments.get("type") is not None:
            _register(cls)

    @property
    def needs(self) -> Takes | None:
        """Return what this section is made from; `takes` unless its fields decide."""
        return self.takes

    @classmethod
    def type_name(cls) -> str:
        """Return the registered name, the one value `type:` may have."""
        return str(cls.model_fields["type"].default)


_families: dict[str, dict[str, type[Component]]] = {}
_loaded: set[str] = set()
_validated: set[str] = set()
"""Families whose choices are part of a built validator."""


def _register(section: type[Component]) -> None:
    """Add a component to its family.

    Raises:
        ValueError: If another class has the name, so that no plug-in replaces a type silently. The same
            class defined again, as in a notebook, replaces itself.
    """
    types = _families.setdefault(section.family, {})
    name = section.type_name()
    other = types.get(name, section)
    if (other.__module__, other.__qualname__) != (section.__module__, section.__qualname__):
        raise ValueError(f"{section.family} type `{name}` is registered twice: {other} and {section}")
    types[name] = section
    if section.family in _validated:
        _rebuild_validators()


def _rebuild_validators() -> None:
    """Rebuild every section's validator, since one of them lacks a component defined after it was built."""
    sections: list[type[Section]] = [Section]
    for section in sections:  # grows during the iteration
        sections += section.__subclasses__()
    built = [section for section in sections[1:] if section.__pydantic_complete__]
    for attribute in ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"):
        for section in built:  # all of them first: a section includes the schemas of those below it
            if attribute in section.__dict__:
                delattr(section, attribute)
    for section in built:
        section.model_rebuild(force=True)


def registered(family: str) -> dict[str, type[Component]]:
    """Return the components of a family by name: the built-in ones, then those of plug-ins."""
    load_components()
    return dict(_families.get(family, {}))


def families() -> tuple[str, ...]:
    """Return the names of all families."""
    load_components()
    return tuple(_families)


def load_components() -> None:
    """Import the sections of every room, then those of every plug-in; each module once.

    Called when a component is first looked up, never by an import, so a plug-in may itself import any module
    of mimetic.

    Raises:
        UserError: If a plug-in cannot be imported; it names the plug-in.
    """
    if PLUGINS in _loaded:  # the group is in here once all of its plug-ins are
        return
    _load_rooms()
    for entry in entry_points(group=PLUGINS):
        try:
            _load(f"{entry.name} = {entry.value}", entry.load)
        except (Exception, SystemExit) as error:
            message = f"the plug-in `{entry.name}` ({entry.value}) cannot be imported: {_described(error)}"
            raise UserError(f"{message}; repair or uninstall it", code="MIM-C051") from error
    _loaded.add(PLUGINS)


def exclude_plugins() -> None:
    """Load the built-in components and, in this process, no plug-in."""
    _load_rooms()
    _loaded.add(PLUGINS)


def _load_rooms() -> None:
    for room in ROOMS:
        _load(room, partial(import_module, f"mimetic.{room}.config"))


def _load(name: str, load: Callable[[], object]) -> None:
    if name in _loaded:
        return
    _loaded.add(name)  # first: a plug-in may look components up while it is imported
    try:
        load()
    except BaseException:
        _loaded.discard(name)
        raise


def implementation(section: Component, function: str = "impl") -> Callable[..., Any]:
    """Return the function behind a component, imported when it is first used.

    Raises:
        UserError: If it names none, or one that cannot be imported.
    """
    path = section.functions.get(function)
    name = f"{section.family} `{section.type_name()}`"
    if path is None:
        message = f"{name} names no `{function}`; write `class …(…, {function}='module:function')`"
        raise UserError(message, code="MIM-C052")
    module, _, attribute = path.partition(":")
    try:
        found: Callable[..., Any] = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{name}: `{path}` cannot be imported: {_described(error)}; correct `{function}=` of its class "
            f"{type(section).__module__}.{type(section).__qualname__}",
            code="MIM-C053",
        ) from error
    return found


def plugin_error(error: BaseException) -> RunError | None:
    """Return an exception of a plug-in's code as an error that names plug-in, component and place.

    Validators, implementations and what these return may raise anything, wherever mimetic calls them. So the
    last resorts, of a verb and of a trial, read the traceback.

    Returns:
        None if no code of a plug-in was running.
    """
    names = {re.split("[.:]", entry.value)[0]: entry.name for entry in entry_points(group=PLUGINS)}
    plugin = component = place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = names.get(str(frame.f_globals.get("__name__")).partition(".")[0])
        if name is not None:
            plugin, place = f"plug-in `{name}`", f"{frame.f_code.co_filename}:{line}"
            component = _component_of(frame) or component
    if not plugin:
        return None
    text = f"{component}{plugin} failed at {place}: {_described(error)}; repair or uninstall the plug-in"
    return RunError(text, code="MIM-C054")


def _component_of(frame: FrameType) -> str | None:
    """Return the component whose method or implementation a frame runs: that of its first argument."""
    first = frame.f_locals.get(next(iter(frame.f_code.co_varnames), ""))
    section = first if isinstance(first, type) else type(first)
    return f"{section.family} `{section.type_name()}` of " if issubclass(section, Component) else None


def _described(error: BaseException) -> str:
    """Return an error of somebody's module on one line, with its type: many have no text."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class Registered:
    """Annotation of a field that takes any type of a family: `Annotated[Component, Registered("init")]`.

    A plain string means `{type: string}`.
    """

    def __init__(self, family: str) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {
            TAG + name: handler.generate_schema(section) for name, section in registered(self.family).items()
        }
        _validated.add(self.family)
        tagged = core_schema.tagged_union_schema(choices, discriminator=_chosen)
        return core_schema.no_info_before_validator_function(_expand, tagged)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": list(registered(self.family))}, handler(schema)]}


TAG = "type="
"""Starts the step that a choice by `type` adds to the location of an error, to distinguish it from a key."""


def _chosen(value: Any) -> str | None:
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return TAG + name if isinstance(name, str) else None


def _expand(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value
