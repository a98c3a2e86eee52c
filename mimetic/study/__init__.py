"""Studies: arms × seeds, executed, tracked and compared."""

from mimetic.study.comparison import Comparison, compare
from mimetic.study.study import StudyResult, plan_arms, run

__all__ = ["Comparison", "StudyResult", "compare", "plan_arms", "run"]
