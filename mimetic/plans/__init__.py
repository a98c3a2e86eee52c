"""From rules and sites to a plan that can be read, compared, hashed and applied."""

from mimetic.plans.entry import Entry, Rewritten
from mimetic.plans.plan import Plan, describe, differences
from mimetic.plans.resolve import resolve

__all__ = ["Entry", "Plan", "Rewritten", "describe", "differences", "resolve"]
