"""A trial of an arm with a learner instead of a network: data → kernel machine → covariance file.

Its journal has one epoch per round, like training, so the arm is tracked, displayed and compared like any
other. Epoch 0 is the kernel before features are learned. If validation images select the round, its metrics
are repeated as the final epoch: they become the trial's result.

Losses are mean squared errors to one-hot labels, summed over classes.
"""

import math
import time
from collections.abc import Callable
from hashlib import blake2b

import torch

from mimetic.covariance.store import save_harvest
from mimetic.data.dataset import Dataset
from mimetic.data.shapes import ImageShape
from mimetic.errors import RunError
from mimetic.journal import Journal
from mimetic.kernels.config import Learner
from mimetic.kernels.learn import Round, harvest, kernel_dtype, run_learner, selected, selects_round
from mimetic.kernels.problem import Problem, make_problem
from mimetic.recipe.recipe import Arm
from mimetic.sources.trained import LEARNED
from mimetic.study.environment import versions
from mimetic.study.layout import Trial
from mimetic.train.devices import pick_device, set_arithmetic
from mimetic.train.job import PROGRESS_SECONDS, Stop, Stopped, stop_if

_STEPS = 1000
"""Progress resolution of one round."""


def learn(trial: Trial, arm: Arm, dataset: Dataset, journal: Journal, stop: Stop) -> tuple[str, str | None]:
    """Run the learner of an arm and return its final status, with the reason if it did not finish.

    `stop` is called between blocks of work.

    Raises:
        UserError: If images or device do not fit the learner.
    """
    spec, shape = arm.learner, dataset.shape
    assert isinstance(spec, Learner)
    device, dtype = pick_device(trial.device), kernel_dtype(spec)
    set_arithmetic("fp32", device)  # an earlier trial may have enabled tf32, which is too coarse for arccos
    rounds: list[Round] = []
    progress = _progress_logger(journal, rounds, stop)
    problem = make_problem(spec, dataset, seed=trial.seed, device=device, dtype=dtype, progress=progress)
    content = f"{spec.model_dump_json()}|{dataset.digest}|{trial.seed}"
    journal.write(
        "start",
        seed=trial.seed,
        plan=blake2b(content.encode(), digest_size=16).hexdigest(),
        **start_fields(trial),
        device=str(device),
        threads=torch.get_num_threads(),
        precision=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
        resumed_from_epoch=None,
        note=None,
    )
    try:
        _run_rounds(spec, problem, rounds, journal, stop)
    except Stopped as stopped:
        return "KILLED", str(stopped)
    except RunError as error:
        return "FAILED", str(error)
    # Repeat the selected round's metrics as the final epoch.
    if selects_round(spec) and len(rounds) > 1:
        best = selected(spec, rounds)
        metrics = {**best.metrics, "round": float(best.number)}
        journal.write("epoch", epoch=len(rounds), step=len(rounds), metrics=metrics)
    # Save what was learned.
    assert isinstance(shape, ImageShape)
    origin = f"{trial.arm}, seed {trial.seed}"
    learned = harvest(spec, rounds, shape, origin=origin, images=len(problem.train))
    if learned is not None:
        about = {"learner": spec.model_dump(mode="json"), "data": dataset.name}
        save_harvest(trial.folder / LEARNED, learned, about=about)
        journal.write("artifact", file=LEARNED, kind="covariance")
    return "FINISHED", None


def start_fields(trial: Trial, *, epochs: int | None = None) -> dict[str, object]:
    """Return the fields of a start event that name the trial and what its results depend on."""
    return {"arm": trial.arm, "content": trial.content, "epochs": epochs, "versions": versions()}


def _progress_logger(journal: Journal, rounds: list[Round], stop: Stop) -> Callable[[float], None]:
    """Return a callback that logs the progress of the current round, and raises Stopped on a stop."""
    last_log_time = time.perf_counter()

    def progress(fraction: float) -> None:
        nonlocal last_log_time
        stop_if(stop())
        now = time.perf_counter()
        if now - last_log_time >= PROGRESS_SECONDS:
            journal.write("progress", epoch=len(rounds), step=int(fraction * _STEPS), steps=_STEPS)
            last_log_time = now

    return progress


def _run_rounds(spec: Learner, problem: Problem, rounds: list[Round], journal: Journal, stop: Stop) -> None:
    """Run all rounds, append them to `rounds` and log each as an epoch.

    Raises:
        Stopped: If `stop` returns a reason.
        RunError: If a metric is not finite.
    """
    start_time = time.perf_counter()
    for done in run_learner(spec, problem):
        metrics = {**done.metrics, "epoch_seconds": time.perf_counter() - start_time}
        journal.write("epoch", epoch=done.number, step=done.number, metrics=metrics)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(
                    f"{name} is {value} after round {done.number}; try another ridge", code="MIM-Y191"
                )
        rounds.append(done)
        start_time = time.perf_counter()
        stop_if(stop())
