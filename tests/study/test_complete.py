"""A study that is complete is answered from its files, and only as long as planning would find the same."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any

import pytest

from mimetic.journal import Journal
from mimetic.recipe.load import load
from mimetic.study import complete
from mimetic.study.conclusion import StudyResult, conclude
from mimetic.study.display import Display
from mimetic.study.layout import studies, trials_of
from mimetic.study.planning.arms import open_data, plan_arms
from mimetic.study.study_folder import start
from mimetic.study.tracker import StudyTrials, open_tracker

from .conftest import HARVESTED, PLAIN

Change = Callable[[Path, pytest.MonkeyPatch], None]


def finished(root: Path, *, tracked: bool = False) -> StudyResult:
    """Return a study whose trials have finished, without training them."""
    recipe = load(PLAIN)
    folder = start(root, recipe, plan_arms(recipe), open_data(recipe))
    for trial in trials_of(folder):
        with Journal(trial.journal) as journal:
            journal.write("start", arm=trial.arm, seed=trial.seed, content=trial.content)
            journal.write("epoch", epoch=1, step=2, metrics={"test/acc": 0.5, "test/loss": 1.0})
            journal.write("end", status="FINISHED", reason=None, seconds=1.0)
    study = StudyTrials(recipe, folder, trials_of(folder))
    tracker = open_tracker(study, root=root, display=Display()) if tracked else None
    result = conclude(study, tracker, Display(), interrupted=False)
    complete.record_complete(recipe, result, root, ["a note"])
    return result


def answer(root: Path, recipe: dict[str, Any] = PLAIN, *, offline: bool = True) -> StudyResult | None:
    """Return what a resumed study finds without planning."""
    return complete.complete_result(load(recipe), root, offline=offline, display=Display())


def written(folder: Path) -> dict[Path, int]:
    """Return when each file of a study was written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("[!.]*") if file.is_file()}


def _rewrite(pattern: str, before: str, after: str) -> Change:
    def change(folder: Path, _patch: pytest.MonkeyPatch) -> None:
        file = next(folder.glob(pattern))
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))

    return change


def _without_trial(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    rmtree(folder / "default" / "seed-1")


def _other_code(_folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("mimetic.__file__", str(Path(complete.__file__)))


def _other_package(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "torch-9.dist-info").mkdir()
    patch.syspath_prepend(str(folder))


def _other_data(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(complete, "data_files", lambda _: [folder / "study.json"])


CHANGES: dict[str, Change] = {
    "a trial is gone": _without_trial,
    "a trial failed": _rewrite("default/seed-0/*.jsonl", "FINISHED", "FAILED"),
    "a trial has another content": _rewrite("default/seed-0/*.jsonl", '"content": "', '"content": "x'),
    "the record has other data": _rewrite("study.json", '"arms/default": "', '"arms/default": "x'),
    "our code": _other_code,
    "a package": _other_package,
    "a file of the data": _other_data,
    "damaged": _rewrite("complete.json", "{", ""),
}


def test_nothing_is_written_anew(tmp_path: Path) -> None:
    """The result is that of the study, and its files stay as they are."""
    result = finished(tmp_path)
    before = written(result.folder)
    found = answer(tmp_path)

    assert found is not None
    assert found.to_dict() == result.to_dict()
    assert written(result.folder) == before


def test_a_package_may_add_a_folder_of_its_own_to_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray does when it is imported; what Ray ran is complete without importing Ray."""
    installed, other = tmp_path / "site-packages", tmp_path / "other"
    vendored = installed / "ray" / "vendored"
    for folder in (vendored, other):
        (folder / "psutil-9.dist-info").mkdir(parents=True)
    machine = SimpleNamespace(version=sys.version, path=[str(installed)])
    monkeypatch.setattr(complete, "sys", machine)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(installed))
    finished(tmp_path)
    machine.path.append(str(vendored))
    assert answer(tmp_path) is not None
    machine.path.append(str(other))
    assert answer(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_planning_would_find_is_left_to_it(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journals, record, code, packages, data: whatever a resumed study checks."""
    result = finished(tmp_path)
    CHANGES[change](result.folder, monkeypatch)
    assert answer(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{**PLAIN, "seeds": 3}, {**PLAIN, "name": "other"}, HARVESTED])
def test_another_recipe_is_planned(recipe: dict[str, Any], tmp_path: Path) -> None:
    """More seeds, no study, and a recipe that depends on other trainings."""
    finished(tmp_path)
    assert answer(tmp_path, recipe) is None


@pytest.mark.slow
def test_uploads_that_are_missing_are_left_to_the_tracker(
    tmp_path: Path, empty_store: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is asked for every run, not only whether it was complete once."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    finished(empty_store(tmp_path))
    assert answer(tmp_path, offline=False) is None  # it was not tracked

    rmtree(next(studies(tmp_path)))
    result = finished(tmp_path, tracked=True)
    found = answer(tmp_path, offline=False)
    assert found is not None
    assert found.link == result.link

    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("update runs set lifecycle_stage = 'deleted' where name like '%seed 1'")
        database.commit()
    assert answer(tmp_path, offline=False) is None
    assert answer(tmp_path) is not None


def test_torch_is_not_imported(tmp_path: Path) -> None:
    """Nor MLflow: their imports cost more than the answer."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(PLAIN))
    code = (
        "import sys; from mimetic.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print({'torch', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    finished(tmp_path / "runs")
    words = ["run", str(tmp_path / "tiny.yaml"), "--resume", "--offline", "--root", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
