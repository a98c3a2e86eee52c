"""Models from the user's own code: a function named in the recipe, run only if that is allowed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path

from torch import nn

from mimetic.config.suggest import listed
from mimetic.errors import UserError
from mimetic.models.build import Request, seeded_build
from mimetic.models.config import PythonModel


def python(spec: PythonModel, request: Request) -> nn.Module:
    """Call the user's factory under the key (seed, "model").

    The module is found as by `python -m`: among installed packages and in the working directory. The factory
    gets `args`, and `in_channels` and `num_classes` if it has parameters of these names.
    """
    if not request.allow_code:
        raise UserError(
            f"this recipe runs code: it calls `{spec.call}` with {spec.args}; read that code, and if "
            "you trust it, allow it with `--allow-code` (in Python: `allow_code=True`)",
            code="MIM-M030",
        )
    with _working_directory_importable():
        factory = _find_factory(spec.call)
        arguments = {**_sizes(factory, request), **spec.args}
        try:
            model = seeded_build(lambda: factory(**arguments), request)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise UserError(
                f"`{spec.call}` failed with {arguments}: {type(error).__name__}: {error}", code="MIM-M031"
            ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"`{spec.call}` returned a {type(model).__name__}; it must return a `torch.nn.Module`",
            code="MIM-M032",
        )
    return model


def _find_factory(call: str) -> Callable[..., nn.Module]:
    module_name, _, function_name = call.partition(":")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code
        raise UserError(
            f"`{call}`: importing `{module_name}` failed: {type(error).__name__}: {error}", code="MIM-M033"
        ) from error
    factory: Callable[..., nn.Module] | None = getattr(module, function_name, None)
    if factory is None or not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise UserError(
            f"`{call}`: `{module_name}` has no function `{function_name}` (it has {listed(names) or 'none'})",
            code="MIM-M034",
        )
    return factory


def _sizes(factory: Callable[..., nn.Module], request: Request) -> dict[str, int]:
    try:
        accepted = signature(factory).parameters
    except (TypeError, ValueError):  # a C function without a signature
        return {}
    sizes = {"in_channels": request.in_channels, "num_classes": request.num_classes}
    return {name: value for name, value in sizes.items() if name in accepted}


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
