"""A trial of an arm that learns without backpropagation: data → kernel machine → covariance file.

It speaks in the journal as training does, one epoch for each round, so that it is tracked, shown and
compared like any arm. Epoch 0 is the kernel before features are learned. Where validation images choose
the round, its figures are told again as the last epoch: that is what the trial came to.

Losses are mean squared errors to one-hot labels, summed over classes.
"""

import math
import time
from hashlib import blake2b
from pathlib import Path

import torch

from mimetic.covariance.store import save_harvest
from mimetic.data.dataset import Dataset
from mimetic.data.shapes import ImageShape
from mimetic.errors import RunError, UserError
from mimetic.journal import Journal, read_journal, status
from mimetic.kernels.config import Learner
from mimetic.kernels.learn import arithmetic, harvest, rounds
from mimetic.kernels.problem import Problem, problem
from mimetic.kernels.rounds import Round, selected, selection
from mimetic.recipe.recipe import Arm
from mimetic.study.layout import Trial
from mimetic.train.devices import pick_device, set_arithmetic
from mimetic.train.job import PROGRESS_SECONDS, Stop, Stopped, stop_if

LEARNED = "learned.safetensors"
"""The covariances a trial learned, beside its journal."""

_STEPS = 1000
"""Steps a round is divided into for the display of progress."""


def learn(trial: Trial, arm: Arm, dataset: Dataset, journal: Journal, stop: Stop) -> tuple[str, str | None]:
    """Carry out the learner of an arm and return how it ended, and why if not well.

    Args:
        trial: The trial.
        arm: Its arm, which has a learner.
        dataset: Its images.
        journal: Its journal.
        stop: Returns why learning should stop, if it should; asked between blocks of work.

    Raises:
        UserError: If images or device do not fit the learner.
    """
    spec = arm.learner
    assert isinstance(spec, Learner)
    device = pick_device(trial.device)
    set_arithmetic("fp32", device)  # a trial before this one may have allowed tf32, too coarse for arccos
    given = problem(spec, dataset, seed=trial.seed, device=device, dtype=arithmetic(spec))
    content = f"{spec.model_dump_json()}|{dataset.digest}|{trial.seed}"
    journal.write(
        "start",
        seed=trial.seed,
        plan=blake2b(content.encode(), digest_size=16).hexdigest(),
        arm=trial.arm,
        device=str(device),
        threads=torch.get_num_threads(),
        precision=str(arithmetic(spec)).removeprefix("torch."),
        torch=torch.__version__,
        resumed_from_epoch=None,
        note=None,
    )
    try:
        found = _rounds(trial, spec, given, journal, stop)
    except Stopped as stopped:
        return "KILLED", str(stopped)
    except RunError as error:
        return "FAILED", str(error)
    chosen = selected(found, selection(spec))
    if selection(spec) == "validation" and len(found) > 1:
        told = {**chosen.metrics, "round": float(chosen.number)}
        journal.write("epoch", epoch=len(found), step=len(found), metrics=told)
    origin = f"{trial.arm}, seed {trial.seed}"
    shape = dataset.shape
    assert isinstance(shape, ImageShape)
    learned = harvest(spec, found, shape, origin=origin, images=len(given.train))
    if learned is not None:
        about = {"learner": spec.model_dump(mode="json"), "data": dataset.name}
        save_harvest(trial.folder / LEARNED, learned, about=about)
        journal.write("artifact", file=LEARNED, kind="covariance")
    return "FINISHED", None


def _rounds(trial: Trial, spec: Learner, given: Problem, journal: Journal, stop: Stop) -> list[Round]:
    """Carry out the rounds, telling each as an epoch.

    Raises:
        Stopped: If `stop` says so.
        RunError: If a metric is not finite.
    """
    found: list[Round] = []
    began = told = time.perf_counter()

    def tick(share: float) -> None:
        nonlocal told
        stop_if(stop())
        now = time.perf_counter()
        if now - told >= PROGRESS_SECONDS:
            step, steps = int(share * _STEPS), _STEPS
            journal.write("progress", epoch=len(found), step=step, steps=steps)
            told = now

    for done in rounds(spec, given, seed=trial.seed, tick=tick):
        now = time.perf_counter()
        metrics = {**done.metrics, "epoch_seconds": now - began}
        journal.write("epoch", epoch=done.number, step=done.number, metrics=metrics)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(f"{name} is {value} after round {done.number}; try another ridge")
        found.append(done)
        began = time.perf_counter()
        stop_if(stop())
    return found


def learned_file(folder: Path, called: str) -> Path:
    """Return the file of what a finished trial learned.

    Raises:
        UserError: If there is none; says why.
    """
    path = folder / LEARNED
    if path.is_file():
        return path
    ended = status(read_journal(folder / "journal.jsonl"))
    message = f"{called} has no {LEARNED} in {folder} (the trial there is {ended}); "
    raise UserError(message + "name one whose arm has a `learner` that learns features and has finished")
