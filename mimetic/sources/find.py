"""From the `from:` of a recipe to trained networks, and where studies store theirs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from mimetic.config.errors import Issue, RecipeError, Step
from mimetic.covariance.trained_ref import TrainedRef
from mimetic.data.dataset import example_input
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.data.shapes import IMAGENET
from mimetic.errors import RunError, UserError
from mimetic.files import check_contained, expand_home
from mimetic.graph.sites import find_sites
from mimetic.journal import read_journal, status
from mimetic.models.config import Model, Timm, Torchvision
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.saved import read_folders, read_recipe, write_folders
from mimetic.recipe.stages import origins
from mimetic.sources.tensors import TensorSource
from mimetic.sources.trained import TrainedSource
from mimetic.train.checkpoint import WEIGHTS

STAGE_FOLDERS = "stages.json"
"""Beside `resolved.yaml`: the folder of each stage that the study harvests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """An arm or a stage whose rules take something from trained networks.

    Attributes:
        recipe: Its recipe, which knows its stages and other arms.
        arm: Its section.
        study: Folder of the study; None where only a plan is made and nothing is trained yet.
        seed: Its seed.
        allow_code: Whether `type: python` models may run.
    """

    recipe: Recipe
    arm: Arm
    study: Path | None = None
    seed: int
    allow_code: bool = False


def find_sources(ref: TrainedRef | None, consumer: Consumer) -> list[TrainedSource]:
    """Return the networks that a `from:` names, one for each of its seeds; without, the consumer's own.

    Raises:
        UserError: If a trial is not there, or the study has no such stage.
    """
    own = partial(_of_arm, consumer.arm, seed=consumer.seed, allow_code=consumer.allow_code)
    if ref is None:
        return [own("the training images")]
    if ref.stage is not None or ref.arm is not None:
        return _of_training(ref, consumer)
    if ref.trial is not None or ref.run is not None:
        folder = _run_folder(ref.run, consumer) if ref.trial is None else Path(ref.trial)
        return [trial_source(folder, name=ref.display_name, allow_code=consumer.allow_code)]
    if ref.tensors is not None:
        file = expand_home(ref.tensors)
        return [TensorSource(name=f"tensors {file.name}", file=file, layers=ref.layers, kind=ref.tensor_kind)]
    found = replace(
        own(ref.display_name),
        weights=None if ref.checkpoint is None else Path(ref.checkpoint),
        published=ref.weights,
        learner=None,
    )
    if ref.model is None:
        return [found]
    found = replace(found, model=ref.model, surgery=(), num_classes=_num_classes(ref.model))
    # The head is keyed by seed 0, so all trials measure one network through it.
    return [found if ref.head is None else replace(found, num_classes=ref.head, own_head=True, seed=0)]


def _run_folder(run: str | None, consumer: Consumer) -> Path:
    folder = consumer.recipe.run_folders.get(str(run))
    if folder is None or not folder.is_dir():
        raise UserError(
            f"the trial of run {run} is not here{'' if folder is None else f' ({folder})'}; start the study "
            "by `mimetic run`, with --resume if it was started before, which finds or fetches it",
            code="MIM-S018",
        )
    return folder


def trial_source(folder: Path, *, name: str | None = None, allow_code: bool = False) -> TrainedSource:
    """Return the trained network of a finished trial, or what its learner learned.

    Raises:
        UserError: If it is not the folder of a finished trial.
    """
    found = _of_arm(trial_arm(folder), f"trial {folder}" if name is None else name, allow_code=allow_code)
    return replace(found, weights=folder / WEIGHTS, folder=folder)


def trial_arm(folder: Path) -> Arm:
    """Return the arm that a trial's folder belongs to.

    Raises:
        UserError: If it is not the folder of a finished trial.
    """
    recipe_file = folder.parents[1] / "resolved.yaml" if len(folder.parents) > 1 else folder
    if not recipe_file.is_file():
        raise UserError(
            f"{folder} is not the folder of a finished trial: its study has no resolved.yaml; "
            "give a folder like mlruns/studies/<recipe>/<time>/<arm>/seed-0",
            code="MIM-S010",
        )
    check_contained(recipe_file.parent)
    recipe = read_recipe(recipe_file.parent)
    if folder.parent.name not in recipe.arms:
        raise UserError(f"{folder}: its study has no arm `{folder.parent.name}`", code="MIM-S011")
    arm = recipe.arms[folder.parent.name]
    if arm.learner is None and not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} is not the folder of a finished trial: it has no {WEIGHTS}", code="MIM-S012"
        )
    return arm


def _of_arm(arm: Arm, name: str, *, seed: int = 0, allow_code: bool = False) -> TrainedSource:
    """Return the network of an arm as it is described, without weights."""
    return TrainedSource(
        name=name,
        model=arm.model,
        surgery=arm.surgery,
        shape=None if arm.data is None else describe_dataset(arm.data),
        learner=arm.learner,
        seed=seed,
        allow_code=allow_code,
    )


def _of_training(ref: TrainedRef, consumer: Consumer) -> list[TrainedSource]:
    """Return the networks of a stage or another arm, one for each of its seeds."""
    recipe, kind = consumer.recipe, ref.kind
    arm = recipe.arms[str(ref.arm)] if ref.stage is None else recipe.stages[ref.stage]
    seeds = harvested_seeds(recipe, ref, own=consumer.seed)
    planned = _of_arm(arm, ref.display_name, allow_code=consumer.allow_code)
    # A plan needs no folder; in a study each seed has its trial.
    if consumer.study is None:
        return [replace(planned, seed=seed, weights=partial(_not_trained, planned.name)) for seed in seeds]
    name = str(getattr(ref, kind))
    study = consumer.study if ref.stage is None else stage_folder(consumer.study, name)
    return [
        replace(
            planned,
            name=f"{ref.display_name}, seed {seed}",
            seed=seed,
            folder=study / name / f"seed-{seed}",
            weights=partial(trained_weights, study, name, seed, noun=kind),
            initial=partial(_initialized, replace(consumer, arm=arm, seed=seed)),
            cached=True,
        )
        for seed in seeds
    ]


def _not_trained(name: str) -> Path:
    raise RunError(f"{name} is not trained yet; `mimetic run` trains it", code="MIM-S016")


def _initialized(consumer: Consumer) -> nn.Module:
    """Return the network of a trial as its plan initialized it."""
    from mimetic.sources.collect import collect_inputs

    arm = consumer.arm
    assert arm.data is not None
    dataset = load_dataset(arm.data)
    source = _of_arm(arm, "its initialization", seed=consumer.seed, allow_code=consumer.allow_code)
    built = source.build()
    graph = find_sites(built.model, example_input(dataset.shape))
    harvests = collect_inputs(consumer, dataset)
    plan = resolve(arm, graph, seed=consumer.seed, harvests=harvests, rewrites=built.rewrites)
    plan.apply(built.model)
    return built.model


def _num_classes(model: Model) -> int | None:
    """Return the outputs of a reference's own `model`: ImageNet's for one of a library."""
    if model.num_classes is None and isinstance(model, Torchvision | Timm):
        return IMAGENET.num_classes
    return model.num_classes


def stage_seeds(recipe: Recipe, name: str) -> tuple[int, ...]:
    """Return the seeds a stage is trained on: its own, or the study's."""
    seeds = recipe.stages[name].seeds
    return recipe.seeds if seeds is None else seeds


def harvested_seeds(recipe: Recipe, ref: TrainedRef, *, own: int) -> tuple[int, ...]:
    """Return the seeds of a stage or an arm that a trial of the seed `own` harvests."""
    if isinstance(ref.seeds, tuple):
        return ref.seeds
    if ref.seeds == "own" and (ref.stage is None or recipe.stages[ref.stage].seeds is None):
        return (own,)
    return recipe.seeds if ref.stage is None else stage_seeds(recipe, ref.stage)


def write_stage_folders(study: Path, folders: Mapping[str, Path]) -> None:
    """Write the folders of a study's stages into it."""
    write_folders(study / STAGE_FOLDERS, folders)


def stage_folders(study: str | Path) -> dict[str, Path]:
    """Return the folders of a study's stages; empty where it has none."""
    path = Path(study) / STAGE_FOLDERS
    try:
        return read_folders(path)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); run the recipe again", code="MIM-S017") from error


def stage_folder(study: str | Path, name: str) -> Path:
    """Return the folder of one stage of a study.

    Raises:
        UserError: If the study has no such stage.
    """
    folders = stage_folders(study)
    if name not in folders:
        raise UserError(
            f"{Path(study) / STAGE_FOLDERS} has no stage `{name}`; run the recipe again", code="MIM-S013"
        )
    return folders[name]


def trained_weights(study: Path, name: str, seed: int, *, noun: str = "stage") -> Path:
    """Return the file with the final weights of a stage or an arm.

    Raises:
        RunError: If its training did not finish, or did not save its weights.
    """
    folder = study / name / f"seed-{seed}"
    events = read_journal(folder / "journal.jsonl")
    state, path = status(events), folder / WEIGHTS
    if state != "FINISHED":
        ends = (e["reason"] for e in reversed(events) if e["event"] == "end" and e.get("reason"))
        reason = next((f": {reason}" for reason in ends), "")
        raise RunError(f"{noun} `{name}`, seed {seed}, is {state}{reason}; see {folder}", code="MIM-S014")
    if not path.is_file():
        raise RunError(
            f"{noun} `{name}`, seed {seed}, finished without saving its weights; "
            "leave `train.checkpoint.keep_weights` at true",
            code="MIM-S015",
        )
    return path


def find_runs(recipe: Recipe, fetch: Callable[[str], Path]) -> Recipe:
    """Return the recipe with the folder of every `from: {run: ID}`; itself where there is none.

    Args:
        recipe: The recipe.
        fetch: Returns the folder of the trial that a run mirrors, or raises a UserError.

    Raises:
        RecipeError: With every run that is missing, or is not a finished trial.
    """
    folders: dict[str, Path] = {}
    issues: dict[str, Issue] = {}
    for path, run in _runs(recipe):
        if run in folders or run in issues:
            continue
        try:
            folders[run] = fetch(run)
        except UserError as error:
            hint = "give the id of a finished trial's run, 32 digits as `mimetic ui` shows them"
            issues[run] = Issue(str(error), path, recipe.where(*path), hint, code=error.code)
    if issues:
        raise RecipeError(tuple(issues.values()))
    return recipe.with_run_folders(folders) if folders else recipe


def _runs(recipe: Recipe) -> Iterator[tuple[tuple[Step, ...], str]]:
    """Yield the runs that rules name, and where."""
    for at in recipe.addresses():
        for rule in recipe.section(at).init:
            for path, ref in origins(rule):
                if ref.run is not None:
                    yield (at.among, at.name, "init", rule.id, *path, "run"), ref.run
