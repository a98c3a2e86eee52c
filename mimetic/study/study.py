"""A study: arms × seeds, planned, executed, tracked and compared.

Everything a recipe can get wrong is found before the first trial starts: every arm is planned against
its model on the meta device, and its data are opened once.
"""

import json
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mimetic import data, models
from mimetic.errors import RunError, UserError
from mimetic.files import write_text
from mimetic.graph import find_sites
from mimetic.journal import Follower, read_journal, status
from mimetic.plan import Plan, resolve
from mimetic.recipe import Recipe, RecipeError, resolved
from mimetic.recipe.errors import Issue
from mimetic.study.comparison import Comparison, compare
from mimetic.study.display import Display, Quiet
from mimetic.study.environment import environment
from mimetic.study.layout import Trial, new_folder, read_record, studies, write_record
from mimetic.study.pool import Pool, cores
from mimetic.study.report import write_comparison

DEFAULT_ROOT = Path("mlruns")


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What became of a study.

    Attributes:
        folder: Where its files lie.
        comparison: The arms compared.
        statuses: How each trial ended, by its name.
        link: Where to look in the MLflow UI; None where the study ran offline.
        interrupted: Whether it was stopped by the user.
    """

    folder: Path
    comparison: Comparison
    statuses: Mapping[str, str]
    link: str | None
    interrupted: bool

    @property
    def complete(self) -> bool:
        """Tell whether every trial finished."""
        return all(ended == "FINISHED" for ended in self.statuses.values())


def plan_arms(recipe: Recipe, *, allow_code: bool = False, seed: int | None = None) -> dict[str, Plan]:
    """Plan every arm against its model on the meta device.

    Raises:
        RecipeError: With the mistakes of all arms at once.
    """
    issues: list[Issue] = []
    plans: dict[str, Plan] = {}
    for name in recipe.arms:
        try:
            plans[name] = _plan_arm(recipe, name, allow_code=allow_code, seed=seed)
        except RecipeError as error:
            issues += error.issues
        except UserError as error:
            issues.append(
                Issue(str(error), ("arms", name, "model"), recipe.where("arms", name, "model"), None)
            )
    if issues:
        raise RecipeError(issues)
    return plans


def _plan_arm(recipe: Recipe, name: str, *, allow_code: bool, seed: int | None) -> Plan:
    arm = recipe.arms[name]
    missing = [part for part in ("model", "data", "train") if getattr(arm, part) is None]
    if arm.model is None or arm.data is None or missing:
        said = " and ".join(f"`{part}`" for part in missing)
        where = recipe.where("arms", name)
        raise RecipeError([Issue(f"to be run, arm `{name}` needs {said}", ("arms", name), where, None)])
    if recipe.study.metric.startswith("val/") and arm.data.val_size == 0:
        where = recipe.where("study", "metric")
        message = f"`{recipe.study.metric}` needs validation images, and arm `{name}` holds none out"
        raise RecipeError([Issue(message, ("study", "metric"), where, "set `data.val_size`")])
    shape = data.describe(arm.data)
    model = models.build_meta(
        arm.model, in_channels=shape.channels, num_classes=shape.num_classes, allow_code=allow_code
    )
    example = torch.empty(2, shape.channels, shape.height, shape.width, device="meta")
    return resolve(
        arm,
        find_sites(model, example),
        seed=recipe.seeds[0] if seed is None else seed,
        name=name,
        where=recipe.place_in(name),
    )


def run(
    recipe: Recipe,
    *,
    root: Path = DEFAULT_ROOT,
    resume: bool = False,
    offline: bool = False,
    allow_code: bool = False,
    workers: int | None = None,
    device: str | None = None,
    display: Display | None = None,
) -> StudyResult:
    """Train every arm on every seed and compare them.

    Args:
        recipe: The recipe.
        root: Folder of the runs.
        resume: Continue the latest study of this recipe instead of starting a new one.
        offline: Use no tracking server; the journals can be mirrored later.
        allow_code: Let `type: python` models run.
        workers: Worker processes; the recipe's, or one per core or GPU unless given.
        device: Overrides the recipe's device.
        display: Shows what happens.

    Returns:
        The comparison and how each trial ended. Ctrl-C ends the trials as KILLED and returns what there is.

    Raises:
        RecipeError: If the recipe does not fit its models; nothing was started then.
        UserError: If data are missing or there is nothing to resume.
    """
    shown = Quiet() if display is None else display
    plans = plan_arms(recipe, allow_code=allow_code)
    digests = _open_data(recipe)
    folder = _continued(root, recipe) if resume else _started(root, recipe, plans, digests)
    trials = [
        Trial(str(folder), arm, seed, device if device is not None else _device(recipe, arm), allow_code)
        for seed in recipe.seeds
        for arm in recipe.arms
    ]
    waiting = [trial for trial in trials if status(read_journal(trial.journal)) != "FINISHED"]
    shown.begin(folder, waiting)
    tracker = _tracker(recipe, folder, trials, root=root, offline=offline, display=shown)
    interrupted = _execute(recipe, waiting, tracker, workers=workers, display=shown)
    histories = [(trial.arm, trial.seed, read_journal(trial.journal)) for trial in trials]
    comparison = compare(histories, baseline=baseline(recipe), metric=recipe.study.metric)
    files = write_comparison(comparison, histories, folder)
    link = None if tracker is None else tracker.finish(comparison, files, interrupted=interrupted)
    ended = {trial.name: status(read_journal(trial.journal)) for trial in trials}
    return StudyResult(folder, comparison, ended, link, interrupted)


def baseline(recipe: Recipe) -> str:
    """Return the arm the others are compared with."""
    return next(iter(recipe.arms)) if recipe.baseline is None else recipe.baseline


def _device(recipe: Recipe, arm: str) -> str:
    train = recipe.arms[arm].train
    return "auto" if train is None else train.device


def _open_data(recipe: Recipe) -> dict[str, str]:
    """Load each data set once, so that a missing one is said before anything starts.

    Returns:
        The digest of each arm's data.
    """
    digests: dict[str, str] = {}
    opened: dict[str, str] = {}
    for name, arm in recipe.arms.items():
        assert arm.data is not None
        key = arm.data.model_dump_json()
        if key not in opened:
            try:
                opened[key] = data.load(arm.data).digest
            except UserError as error:
                where = recipe.where("arms", name, "data")
                raise RecipeError([Issue(str(error), ("arms", name, "data"), where, None)]) from None
        digests[name] = opened[key]
    return digests


def _started(root: Path, recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]) -> Path:
    folder = new_folder(root, recipe.name)
    try:
        for index, (file, text) in enumerate(recipe.sources.items()):
            write_text(folder / ("recipe.yaml" if index == 0 else f"extends/{Path(file).name}"), text)
        write_text(folder / "resolved.yaml", resolved(recipe))
        for arm, plan in plans.items():
            write_text(folder / arm / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
        record = {
            "recipe": recipe.name,
            "arms": list(recipe.arms),
            "seeds": list(recipe.seeds),
            "baseline": baseline(recipe),
            "metric": recipe.study.metric,
            "data": dict(digests),
            "host": socket.gethostname(),
            "environment": environment(),
        }
        write_record(folder, record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _continued(root: Path, recipe: Recipe) -> Path:
    """Return the latest study of the recipe, which must be of the same recipe."""
    found = list(studies(root, recipe.name))
    if not found:
        raise UserError(
            f"there is no study of `{recipe.name}` below {root} to resume; run it without --resume"
        )
    folder = found[-1].resolve()
    read_record(folder)
    before = (folder / "resolved.yaml").read_text(encoding="utf-8").splitlines()
    now = resolved(recipe).splitlines()
    changed = [(a, b) for a, b in zip(before, now, strict=False) if a != b]
    if changed or len(before) != len(now):
        old, new = changed[0] if changed else (f"{len(before)} lines", f"{len(now)} lines")
        raise UserError(
            f"the recipe changed since {folder}: it said `{old.strip()}` and now says `{new.strip()}`; "
            "take the change back, or run it without --resume as a new study"
        )
    return folder


def _tracker(
    recipe: Recipe, folder: Path, trials: Sequence[Trial], *, root: Path, offline: bool, display: Display
) -> Any:
    if offline:
        return None
    from mimetic.study.tracker import Tracker

    try:
        return Tracker(recipe, folder, trials, root=root, display=display)
    except RunError as error:
        display.say(f"not tracked: {error}")
        return None


def _execute(
    recipe: Recipe, trials: Sequence[Trial], tracker: Any, *, workers: int | None, display: Display
) -> bool:
    """Run the trials; return whether the user stopped them."""
    if not trials:
        return False
    followers = {trial: Follower(trial.journal) for trial in trials}
    for follower in followers.values():
        follower.new()  # what an earlier run said is not news

    def tick() -> None:
        for trial, follower in followers.items():
            events = follower.new()
            if events:
                display.update(trial, events)
        if tracker is not None:
            tracker.pump()

    on_gpu = torch.cuda.is_available() and any(trial.device != "cpu" for trial in trials)
    gpus = torch.cuda.device_count() if on_gpu else 0
    wanted = recipe.study.workers if workers is None else workers
    count = (gpus if gpus else cores()) if wanted is None else wanted
    pool = Pool(workers=count, gpus=gpus, logs=Path(trials[0].study) / "logs")
    try:
        pool.run(trials, tick)
    except KeyboardInterrupt:
        return True
    return False
