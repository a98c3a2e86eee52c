"""Find what a verb works on: the plans of a recipe, the folder of a study."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimetic.cli import completion
from mimetic.cli.console import echo
from mimetic.cli.options import PlanOptions
from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from mimetic.plans.plan import Plan
    from mimetic.recipe.recipe import Recipe
    from mimetic.study.planning.arms import Planned

StudyName = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help="Folder of a study; or a recipe or its name, for its latest study.",
        show_default=False,
        autocompletion=completion.studies,
    ),
]


def load_recipe(path: Path, overrides: list[str] | None, *, untrusted: bool = False) -> "Recipe":
    """Load a recipe, and print what a user should know about it.

    Raises:
        UserError: As `load`.
    """
    from mimetic.recipe.load import load

    recipe = load(path, overrides=overrides if overrides is not None else (), untrusted=untrusted)
    for note in recipe.notes:
        echo(f"note: {note}", err=True)
    return recipe


def recipe_or_model(text: str, overrides: list[str] | None) -> "tuple[Recipe, str | None]":
    """Load a recipe; a model in its place, e.g. `timm:resnet18`, is a recipe without rules, and the model.

    Raises:
        UserError: As `load`.
    """
    from mimetic.config.registry import registered
    from mimetic.recipe.load import load

    if text.partition(":")[0] not in registered("model") or Path(text).exists():
        return load_recipe(Path(text), overrides), None
    return load({"recipe": 1}, overrides=overrides if overrides is not None else ()), text


def command_line(*words: str, root: Path) -> str:
    """Return a command line to copy; it names the folder of the runs where that is not the default."""
    place = () if root == DEFAULT_ROOT else ("--root", str(root))
    return shlex.join(("mimetic", *words, *place))


def planned(recipe: "Recipe", options: PlanOptions, *, seed: int | None = None) -> "Planned":
    """Plan one arm, or all, as `mimetic run` with the same root would.

    Raises:
        UserError: If there is no such arm or model.
        RecipeError: With the mistakes of the arm, or of all arms and stages, at once.
    """
    from mimetic.api.starting import choose_arm
    from mimetic.models.config import parse_model_argument
    from mimetic.study.planning.arms import plan_recipe
    from mimetic.tracking.fetch import with_local_runs

    return plan_recipe(
        with_local_runs(recipe, options.root),
        to_run=False,
        arm=None if options.arm is None else choose_arm(recipe, options.arm),
        model=None if options.model is None else parse_model_argument(options.model),
        seed=seed,
        allow_code=options.allow_code,
    )


def plans_of(recipe: "Recipe", options: PlanOptions, *, seed: int | None = None) -> "dict[str, Plan]":
    """Return the plans of one arm, or of all; see `planned`.

    Raises:
        UserError: If no arm has a network.
    """
    plans = planned(recipe, options, seed=seed).plans
    if not plans:
        arm = next(iter(recipe.arms)) if options.arm is None else options.arm
        raise UserError(
            f"arm `{arm}` learns without a network and has no parameters to initialize; see `mimetic plan`",
            code="MIM-X010",
        )
    return plans


def find_study(study: str | None, root: Path) -> Path:
    """Return the folder of a study; the latest of all unless one is named.

    Raises:
        UserError: If there is none.
    """
    from mimetic.recipe.load import load
    from mimetic.study.layout import studies

    if study is not None and Path(study).is_dir():
        return Path(study)
    name = load(study).name if study is not None and Path(study).is_file() else study
    found = list(studies(root, name))
    if found:
        return found[-1]
    names = sorted({folder.parent.name for folder in studies(root)})
    if not names or name is None:
        raise no_study(root)
    hint = did_you_mean(name, names) or f"there are {', '.join(names)}"
    raise UserError(f"there is no study of `{name}` below {root}; {hint}", code="MIM-X012")


def no_study(root: Path) -> UserError:
    """Return the error of a root without studies."""
    return UserError(
        f"there is no study below {root} yet; run one with `mimetic run RECIPE`", code="MIM-X011"
    )
