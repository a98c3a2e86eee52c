"""One trial from start to end: data → model → plan → apply → train → check → keep.

It says everything in its journal and returns only how it ended; no mistake leaves it as a traceback.
"""

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mimetic import data
from mimetic.data import Dataset
from mimetic.errors import RunError, UserError
from mimetic.files import write_text
from mimetic.graph import canonical_parameters, find_sites
from mimetic.journal import Journal, history, read_journal
from mimetic.plan import Plan, resolve
from mimetic.recipe import Arm, Recipe, load
from mimetic.study.harvests import gather
from mimetic.study.layout import Trial, is_finished
from mimetic.study.learning import learn
from mimetic.study.locks import holding_trial
from mimetic.study.observe import observer
from mimetic.study.pictures import draw_ansatz, draw_pictures
from mimetic.surgery import Network, build_network
from mimetic.train import digest, train

Stop = Callable[[], str | None]


class Shelf:
    """What a worker keeps between trials: the recipe and the data sets it has read."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}
        self._data: dict[str, Dataset] = {}

    def recipe(self, study: str) -> Recipe:
        """Return the resolved recipe of a study."""
        if study not in self._recipes:
            self._recipes[study] = load(Path(study) / "resolved.yaml")
        return self._recipes[study]

    def dataset(self, arm: Arm) -> Dataset:
        """Return the data an arm is trained on."""
        assert arm.data is not None
        name = arm.data.model_dump_json()
        if name not in self._data:
            self._data.clear()  # one data set at a time: several may not fit
            self._data[name] = data.load(arm.data)
        return self._data[name]


def run_trial(trial: Trial, shelf: Shelf, stop: Stop) -> str:
    """Train one trial, or continue it from its checkpoint, and return how it ended.

    Args:
        trial: The trial.
        shelf: What earlier trials of this process left.
        stop: Returns why training should stop, if it should; asked once a step.

    Returns:
        FINISHED, FAILED or KILLED; the journal holds the reason.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    with holding_trial(trial, stop) as held:
        if held and is_finished(trial):  # by another process, while this one waited
            return "FINISHED"
        return _journaled(trial, shelf, stop) if held else "KILLED"


def _journaled(trial: Trial, shelf: Shelf, stop: Stop) -> str:
    began = time.monotonic()
    with Journal(trial.journal) as journal:
        try:
            ended, reason = _trained(trial, shelf, journal, stop)
        except UserError as error:
            ended, reason = "FAILED", str(error)
        except torch.OutOfMemoryError as error:
            ended, reason = "FAILED", f"out of memory; try a smaller `train.batch_size` ({error})"
        except Exception as error:  # noqa: BLE001 - the other trials go on; the trace is kept beside the journal
            write_text(trial.folder / "error.txt", traceback.format_exc())
            ended, reason = "FAILED", f"{type(error).__name__}: {error} (see {trial.folder / 'error.txt'})"
        journal.write("end", status=ended, reason=reason, seconds=round(time.monotonic() - began, 3))
    return ended


def _trained(trial: Trial, shelf: Shelf, journal: Journal, stop: Stop) -> tuple[str, str | None]:
    recipe = shelf.recipe(trial.study)
    arm = recipe.arms[trial.arm]
    dataset = shelf.dataset(arm)
    if arm.learner is not None:
        return learn(trial, arm, dataset, journal, stop)
    assert arm.model is not None
    assert arm.train is not None
    network = build(arm, dataset, trial)
    model = network.model
    harvests = gather(trial, recipe, arm, dataset)
    graph = find_sites(model, dataset.shape.example())
    plan = resolve(arm, graph, seed=trial.seed, name=trial.arm, harvests=harvests, rewrites=network.rewrites)
    write_text(trial.folder / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
    written = plan.apply(model, progress=_told(journal))
    remarks = [f"{m.parameter} {m.remark}" for m in written if m.remark is not None]
    if remarks:
        journal.write("note", text="; ".join(remarks))
    _draw(trial, plan, model, journal, "start")
    parameters = canonical_parameters(model)
    frozen = {name: digest(parameters[name]) for name in plan.frozen}
    outcome = train(
        model,
        dataset,
        arm.train.model_copy(update={"device": trial.device}),
        seed=trial.seed,
        journal=journal,
        folder=trial.folder,
        plan_hash=plan.hash,
        augment=getattr(arm.data, "augment", ()),
        frozen=frozen,
        held=plan.held,
        facts={"arm": trial.arm},
        resume=True,
        stop=stop,
        observe=observer(arm, model, graph, dataset, seed=trial.seed),
    )
    if outcome.status == "FINISHED":
        _draw(trial, plan, model, journal, "end")
    return outcome.status, outcome.reason


def build(arm: Arm, dataset: Dataset, trial: Trial) -> Network:
    """Build the arm's network with its own initialization, surgery included, on the CPU."""
    assert arm.model is not None
    return build_network(
        arm.model,
        arm.surgery,
        shape=dataset.shape,
        seed=trial.seed,
        allow_code=trial.allow_code,
        name=trial.arm,
    )


def _told(journal: Journal) -> Callable[[int, int], None]:
    """Return what journals how far the initialization is, about once a second."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            journal.write("initialize", done=done, total=total)

    return progress


def _draw(trial: Trial, plan: Plan, model: nn.Module, journal: Journal, moment: str) -> None:
    """Keep pictures of the filters and of what was measured; one that fails is no reason to lose a trial."""
    folder = trial.folder / "pictures"
    try:
        files = draw_pictures(plan, canonical_parameters(model), folder, moment)
        if moment == "end":
            files += draw_ansatz(history(read_journal(trial.journal)), folder)
    except (RunError, OSError, ValueError) as error:
        journal.write("note", text=f"no pictures at the {moment}: {error}")
        return
    for file in files:
        journal.write("artifact", file=str(file.relative_to(trial.folder)), kind="picture")
