"""Which executor a recipe gets, and on how many workers and GPUs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mimetic.recipe.load import load
from mimetic.study.executors import pool, supervisor
from mimetic.study.executors.pick import pick_executor
from mimetic.study.executors.pool import ProcessPoolExecutor, cores
from mimetic.study.executors.ray import RayExecutor
from mimetic.study.executors.torchrun import TorchrunExecutor
from mimetic.study.layout import Trial


def pick(tmp_path: Path, device: str = "auto", workers: int | None = None, **study: Any) -> Any:
    """Return the executor for one trial on a device."""
    recipe = load({"recipe": 1, "name": "x", "model": "convmixer", "data": "digits", "study": study})
    trials = [Trial(str(tmp_path), "main", 0, device)]
    return pick_executor(recipe, trials, logs=tmp_path, workers=workers, address="here:6379")


def recording(seen: list[str], name: str) -> Callable[..., None]:
    """Return what notes an environment variable of a process instead of starting it."""

    def start(*_: object, env: dict[str, str], **__: object) -> None:
        seen.append(env[name])
        raise NotImplementedError

    return start


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the number of GPUs of a machine that has some."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return 2


def test_slots_share_each_gpu(gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GPU gets as many workers as it has slots, in turn; a number of workers goes before."""
    four = pick(tmp_path, slots=2)
    assert isinstance(four, ProcessPoolExecutor)
    assert (four.gpus, four.workers) == (gpus, 4)
    assert pick(tmp_path).workers == gpus
    assert pick(tmp_path, slots=2, workers=3).workers == 3

    seen: list[str] = []
    monkeypatch.setattr(supervisor.subprocess, "Popen", recording(seen, "CUDA_VISIBLE_DEVICES"))
    for visible, expected in ((None, ["0", "1", "0", "1"]), ("5,7", ["5", "7", "5", "7"])):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        for slot in range(four.workers):
            with pytest.raises(NotImplementedError):
                four._start(slot)
        assert seen == expected
        seen.clear()


@pytest.mark.parametrize(("device", "workers"), [("cpu", cores()), ("cuda:1", 2), ("mps", 2)])
@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_named_is_not_dealt_out(device: str, workers: int, tmp_path: Path) -> None:
    """Workers see all GPUs; the one that is named is shared by as many as it has slots."""
    chosen = pick(tmp_path, device, slots=2)

    assert (chosen.gpus, chosen.workers) == (0, workers)


@pytest.mark.usefixtures("gpus")
def test_workers_on_gpus_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take all of them, and threads that wait for a core spin; who sets a number is obeyed."""
    seen: list[str] = []
    monkeypatch.setattr(supervisor.subprocess, "Popen", recording(seen, "OMP_NUM_THREADS"))
    monkeypatch.setattr(pool, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for slots, given in ((1, None), (2, None), (16, None), (2, "5")):
        if given is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        with pytest.raises(NotImplementedError):
            pick(tmp_path, slots=slots)._start(0)

    assert seen == ["8", "4", "1", "5"]


def test_without_a_gpu_there_is_a_worker_for_each_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line goes before the recipe, and that before the cores."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert pick(tmp_path, slots=4).workers == len(os.sched_getaffinity(0))
    recipe = load({"recipe": 1, "name": "x", "model": "convmixer", "data": "digits", "study": {"workers": 3}})
    trials = [Trial(str(tmp_path), "main", 0)]
    for asked, expected in ((None, 3), (5, 5)):
        chosen = pick_executor(recipe, trials, logs=tmp_path, workers=asked, address=None)
        assert isinstance(chosen, ProcessPoolExecutor)
        assert chosen.workers == expected


def test_ray_and_a_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray where the recipe says so; torchrun's processes go before both."""
    cluster = pick(tmp_path, executor="ray", slots=4)
    assert isinstance(cluster, RayExecutor)
    assert (cluster.address, cluster.slots) == ("here:6379", 4)

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert isinstance(pick(tmp_path, executor="ray"), TorchrunExecutor)
