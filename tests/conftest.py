"""One thread per process, set before torch is imported: two on a busy machine are many times slower."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
if "avx512" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""):
    # The vector unit rounds: with the narrower one, the stored digests of weights hold here, too.
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # the processes that tests start would compile everything again

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.quick_cli import build_commands_once
from tests.warm import warm_server

settings.register_profile("quick", deadline=None, max_examples=20, derandomize=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=100)
settings.load_profile("quick")  # `--hypothesis-profile thorough` in .ci/run

# A shell starts what runs in the background deaf to Ctrl-C, and what tests start and interrupt would be, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


build_commands_once()
gc.disable()  # until all tests are imported


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection, and collect rarely: it took a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.hookimpl(trylast=True)  # after what `-m` and `-k` deselect
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying why, and start every worker of xdist with slow tests.

    `--dist worksteal` gives each worker an equal part of the list and steals from the ends of the parts: with
    fast tests there, no worker is left alone with a slow one.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    fast = [item for item in items if item.get_closest_marker("slow") is None]
    parts = ([len(tests) * number // workers for number in range(workers + 1)] for tests in (slow, fast))
    bounds = zip(*map(pairwise, parts), strict=True)
    items[:] = chain.from_iterable(slow[a:b] + fast[c:d] for (a, b), (c, d) in bounds)
    if not os.environ.get("MIMETIC_DATA"):
        for item in items:
            if item.get_closest_marker("data") is not None:
                item.add_marker(pytest.mark.skip(reason="needs real data: set MIMETIC_DATA to its folder"))


class InThisProcess:
    """An executor without workers, which cost seconds to start."""

    def run(self, waves: Sequence[Sequence[Any]], tick: Callable[[], None]) -> None:
        """Train one trial after another; `tick` is called before each step."""
        from mimetic.study.trials.cache import TrialCache
        from mimetic.study.trials.trial import run_trial

        shelf = TrialCache()
        for trial in chain.from_iterable(waves):
            run_trial(trial, shelf, tick)
        tick()


@pytest.fixture(scope="session")
def in_this_process() -> Callable[[], AbstractContextManager[None]]:
    """Return what makes studies train in this process for a while, without pictures or workers."""

    @contextmanager
    def executing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mimetic.study.study.pick_executor", lambda *_, **__: InThisProcess())
            patch.setattr("mimetic.study.trials.trial.filter_pictures", lambda *_: {})
            yield

    return executing


@pytest.fixture(scope="session")
def no_matplotlib(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder for the module path in which Matplotlib is broken."""
    folder = tmp_path_factory.mktemp("undrawn")
    (folder / "matplotlib.py").write_text("raise ImportError('nothing is drawn here')\n")
    return str(folder)


@pytest.fixture
def undrawn(no_matplotlib: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that a test starts draw no pictures, which cost more than its trials do.

    They note each picture that is missing, as on a machine on which Matplotlib is broken.
    """
    monkeypatch.setenv("PYTHONPATH", no_matplotlib, prepend=os.pathsep)


@pytest.fixture(scope="session")
def warm() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Return a context in which processes of this interpreter need not import torch; see `tests/warm.py`."""
    if sys.platform != "linux":  # what `tests/warm.py` needs is not elsewhere
        yield nullcontext
        return
    with warm_server() as start:

        @contextmanager
        def starting() -> Iterator[None]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(subprocess, "_fork_exec", start)
                yield

        yield starting


@pytest.fixture
def warm_processes(warm: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Start the processes of a test in that context."""
    with warm():
        yield


BuildOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """Return a function that builds a named folder once per session, also across xdist workers.

    What is expensive (a trained study, a migrated store) is built by whichever worker needs it first. Tests
    read the folder or copy it; none writes to it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def build(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = shared / name, shared / f"{name}.complete"
        with FileLock(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return build


_CREATE_STORE = "import sys; from mimetic.tracking.store import connect; connect(sys.argv[1])"


@pytest.fixture(scope="session")
def store_template(build_once: BuildOnce) -> Path:
    """Return a folder with an empty, migrated `mlflow.db`, and what creating it printed in `output.txt`.

    Migrating takes seconds: tests copy the file (see `empty_store`). It is created in a process of its own,
    which keeps no connection to it.
    """

    def create(folder: Path) -> None:
        environment = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        command = [sys.executable, "-W", "error::DeprecationWarning", "-c", _CREATE_STORE, str(folder)]
        with (folder / "output.txt").open("wb") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output, env=environment)

    return build_once("store", create)


@pytest.fixture(scope="session")
def empty_store(store_template: Path) -> Callable[[Path], Path]:
    """Return a function that puts an empty, migrated store into a folder of runs and returns the folder."""

    def put(root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(store_template / "mlflow.db", root)
        return root

    return put
