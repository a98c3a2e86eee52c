"""From rules and sites to a plan that can be read, compared, hashed and applied."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from mimetic.plan.entry import Entry, Rewritten
from mimetic.plan.plan import Plan, describe, differences
from mimetic.plan.resolve import resolve

__all__ = ["Entry", "Plan", "Rewritten", "describe", "differences", "resolve"]


class _Callable(ModuleType):
    """Lets `mimetic.plan(recipe, model)` be the call of `mimetic.api`, though this package has its name.

    Python binds a sub-package to its name in the parent as soon as anything imports it. The call lives
    above this package, so it is looked up by name when it is made: nothing here depends on it.
    """

    def __call__(self, *args: Any, **options: Any) -> Plan:
        made: Plan = import_module("mimetic.api").plan(*args, **options)
        return made


sys.modules[__name__].__class__ = _Callable
