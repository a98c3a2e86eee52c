"""Models from the user's own code: a function named in the recipe, run only when that is allowed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from mimetic.errors import UserError
from mimetic.models.build import Request, as_whole, construct
from mimetic.models.config import PythonModel


@construct.register
def python(spec: PythonModel, request: Request) -> nn.Module:
    """Call the user's factory under the key (seed, "model").

    The module is looked up as by `python -m`: installed packages and the working directory. The factory
    gets `args`, and `in_channels` and `num_classes` if it has parameters of these names.
    """
    if not request.allow_code:
        raise UserError(
            f"this recipe wants to run code: it calls `{spec.call}` with {spec.args}; read that code, and if "
            "you trust it, allow it with `--allow-code` (in Python: `allow_code=True`)"
        )
    with _working_directory_importable():
        factory = _find(spec.call)
        return _call(factory, spec, request)


def _find(call: str) -> Callable[..., Any]:
    module_name, _, function_name = call.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # importing runs the user's code
        raise UserError(f"`{call}`: importing `{module_name}` failed: {_told(error)}") from error
    factory = getattr(module, function_name, None)
    if not callable(factory):
        there = ", ".join(f"`{name}`" for name, value in vars(module).items() if _is_public(name, value))
        raise UserError(
            f"`{call}`: `{module_name}` has no function `{function_name}` (it has {there or 'none'})"
        )
    return factory  # type: ignore[no-any-return]


def _call(factory: Callable[..., Any], spec: PythonModel, request: Request) -> nn.Module:
    arguments = {**_sizes(factory, request), **spec.args}
    try:
        model = as_whole(lambda: factory(**arguments), request)
    except UserError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UserError(f"`{spec.call}` failed with {arguments}: {_told(error)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"`{spec.call}` returned a {type(model).__name__}; it must return a `torch.nn.Module`"
        )
    return model


def _sizes(factory: Callable[..., Any], request: Request) -> dict[str, int]:
    sizes = {"in_channels": request.in_channels, "num_classes": request.num_classes}
    try:
        accepted = signature(factory).parameters
    except (TypeError, ValueError):  # written in C: it says nothing of its parameters
        return {}
    return {name: value for name, value in sizes.items() if name in accepted}


def _is_public(name: str, value: Any) -> bool:
    return callable(value) and not name.startswith("_")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
