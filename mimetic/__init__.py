"""mimetic: start networks where training would have taken them.

The public surface, loaded when it is first used: importing `mimetic` imports neither torch nor MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimetic.api.embeddings import resize_embeddings
    from mimetic.api.measuring import ansatz, harvest, harvest_attention
    from mimetic.api.networks import resample, similarity
    from mimetic.api.starting import initialize, plan
    from mimetic.config.errors import RecipeError
    from mimetic.errors import RunError, UserError
    from mimetic.plans.plan import Plan
    from mimetic.recipe.load import load
    from mimetic.recipe.recipe import Recipe
    from mimetic.study.comparing.own import compare
    from mimetic.study.study import run

__version__ = "0.2.0.dev0"

_HOME = {
    "ansatz": "mimetic.api.measuring",
    "compare": "mimetic.study.comparing.own",
    "harvest": "mimetic.api.measuring",
    "harvest_attention": "mimetic.api.measuring",
    "initialize": "mimetic.api.starting",
    "plan": "mimetic.api.starting",
    "resample": "mimetic.api.networks",
    "resize_embeddings": "mimetic.api.embeddings",
    "similarity": "mimetic.api.networks",
    "Plan": "mimetic.plans.plan",
    "load": "mimetic.recipe.load",
    "Recipe": "mimetic.recipe.recipe",
    "RecipeError": "mimetic.config.errors",
    "run": "mimetic.study.study",
    "RunError": "mimetic.errors",
    "UserError": "mimetic.errors",
}

__all__ = [
    "Plan",
    "Recipe",
    "RecipeError",
    "RunError",
    "UserError",
    "__version__",
    "ansatz",
    "compare",
    "harvest",
    "harvest_attention",
    "initialize",
    "load",
    "plan",
    "resample",
    "resize_embeddings",
    "run",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mimetic' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOME))
