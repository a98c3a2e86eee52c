"""From rules and sites to a plan that can be read, compared, hashed and applied."""

from mimetic.plan.entry import Entry
from mimetic.plan.plan import Plan, describe, differences
from mimetic.plan.resolve import resolve

__all__ = ["Entry", "Plan", "describe", "differences", "resolve"]
