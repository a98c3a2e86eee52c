"""From rules and sites to a plan that can be read, compared, hashed and applied."""

import sys
from types import ModuleType
from typing import Any

from mimetic.plan.entry import Entry
from mimetic.plan.plan import Plan, describe, differences
from mimetic.plan.resolve import resolve

__all__ = ["Entry", "Plan", "describe", "differences", "resolve"]


class _Callable(ModuleType):
    """Lets `mimetic.plan(recipe, model)` be the call of `mimetic.api`, though this package has its name.

    Python binds a sub-package to its name in the parent as soon as anything imports it.
    """

    def __call__(self, *args: Any, **options: Any) -> Plan:
        from mimetic.api import plan

        return plan(*args, **options)


sys.modules[__name__].__class__ = _Callable
