"""Studies that grow: what is trained already is found by its content, and nothing is trained twice."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mimetic.journal import read_journal
from mimetic.recipe.load import load
from mimetic.study.comparing.comparison import of_studies
from mimetic.study.comparing.tables import table_of
from mimetic.study.conclusion import StudyResult
from mimetic.study.record import read_record
from mimetic.study.study import run

from .conftest import PLAIN, filters
from .test_study import Recorder, weights

Grow = Callable[..., tuple[StudyResult, Recorder]]

ONE: dict[str, Any] = {
    **PLAIN,
    "train": {"epochs": 2, "batch_size": 32, "schedule": "constant"},
    "arms": {"default": {}, "closed": filters("closed_form")},
}
MORE_SEEDS = {**ONE, "seeds": 3}
MORE_ARMS = {**MORE_SEEDS, "arms": {**ONE["arms"], "frozen": filters("closed_form", freeze=True)}}


def longer(arm: str, epochs: int, of: Mapping[str, Any] = MORE_ARMS, **train: Any) -> dict[str, Any]:
    """Return a recipe in which an arm is trained for more epochs."""
    arms = dict(of["arms"])
    arms[arm] = {**arms[arm], "train": {"epochs": epochs, **train}}
    return {**of, "arms": arms}


@pytest.fixture
def grow(tmp_path: Path, in_this_process: Callable[[], AbstractContextManager[None]]) -> Grow:
    """Return a function that runs or resumes a recipe in one root, and records what is trained."""

    def growing(recipe: Mapping[str, Any], **options: Any) -> tuple[StudyResult, Recorder]:
        display = Recorder()
        with in_this_process():
            result = run(load(recipe), **{"root": tmp_path, "offline": True, "display": display} | options)
        return result, display

    return growing


def current(folder: Path) -> dict[str, str]:
    """Return the digests of the weights of a study's trials, without those of its revisions."""
    return {name: value for name, value in weights(folder).items() if not name.startswith("revisions")}


def names(display: Recorder) -> list[str]:
    """Return the trials that were to be trained."""
    return [trial.name for trial in display.trials]


@pytest.mark.slow
def test_a_study_that_grows_trains_what_is_missing(grow: Grow, tmp_path: Path) -> None:
    """Seeds, then an arm, then epochs: only what is new is trained, and all bytes are as in a whole study."""
    final = longer("closed", 3)
    steps = [(ONE, 4), (MORE_SEEDS, 2), (MORE_ARMS, 3), (final, 3), (final, 0)]
    for number, (recipe, expected) in enumerate(steps):
        result, display = grow(recipe, resume=number > 0)
        assert len(display.trials) == expected
        assert result.complete
    whole, _ = grow(final, root=tmp_path / "whole")

    assert current(result.folder) == current(whole.folder)
    assert len(current(whole.folder)) == 9
    assert [len(row.values) for row in of_studies([result.folder])[0].rows] == [3, 3, 3]
    changes = [entry["changes"] for entry in read_record(result.folder).revisions]
    assert changes == [
        ["seeds: [0, 1] → [0, 1, 2]"],
        ["arms.frozen: added"],
        ["arms.closed.train.epochs: 2 → 3"],
    ]
    epochs = [
        e["epoch"] for e in read_journal(result.folder / "closed/seed-0/journal.jsonl") if "metrics" in e
    ]
    assert epochs == [0, 1, 2, 3]  # it went on


@pytest.mark.slow
def test_a_schedule_of_the_whole_training_is_trained_anew(grow: Grow, tmp_path: Path) -> None:
    """The learning rate of a cosine's steps depends on their number; the former trials are set aside."""
    cosine = {**ONE, "seeds": 1, "train": {**ONE["train"], "schedule": "cosine"}}
    first, _ = grow(cosine)
    former = current(first.folder)["closed/seed-0/weights.safetensors"]
    (first.folder / "closed/seed-0/.state.safetensors.x.tmp").touch()  # of a worker that was killed

    result, display = grow(longer("closed", 3, cosine), resume=True)
    whole, _ = grow(longer("closed", 3, cosine), root=tmp_path / "whole")

    assert names(display) == ["closed · seed 0"]
    assert any("trained anew" in text and "revisions/1/closed" in text for text in display.said)
    assert current(result.folder) == current(whole.folder)
    assert weights(result.folder)["revisions/1/closed/seed-0/weights.safetensors"] == former
    assert not list(result.folder.rglob(".*.tmp"))


@pytest.mark.slow
def test_what_depends_on_other_trials_follows_them(grow: Grow, tmp_path: Path) -> None:
    """An arm that harvests a longer trained one, or all of its seeds, is trained anew."""
    taken = {"type": "filters", "from": {"arm": "default", "seeds": "all"}}
    chained = {**ONE, "seeds": 1, "arms": {"default": {}, "taken": filters(taken)}}
    grow(chained)

    for recipe, expected in (
        ({**chained, "seeds": 2}, ["default · seed 1", "taken · seed 0", "taken · seed 1"]),
        (
            longer("default", 3, {**chained, "seeds": 2}),
            [f"{arm} · seed {s}" for arm in chained["arms"] for s in (0, 1)],
        ),
    ):
        result, display = grow(recipe, resume=True)
        assert sorted(names(display)) == sorted(expected)
    whole, _ = grow(recipe, root=tmp_path / "whole")
    assert current(result.folder) == current(whole.folder)


@pytest.mark.slow
def test_trials_of_other_studies_are_reused(grow: Grow, tmp_path: Path) -> None:
    """By content, whatever arm and study are called; with their origin; what is damaged is trained."""
    first, _ = grow(ONE)
    damaged = first.folder / "closed" / "seed-1" / "weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    other = {**MORE_SEEDS, "name": "other", "arms": {"plain": {}, "closed": ONE["arms"]["closed"]}}

    result, display = grow(other, reuse=True)
    whole, _ = grow(other, root=tmp_path / "whole")

    assert sorted(names(display)) == ["closed · seed 1", "closed · seed 2", "plain · seed 2"]
    assert any("MIM" not in text and "digest mismatch" in text for text in display.said)
    assert current(result.folder) == current(whole.folder)
    plain, closed = of_studies([result.folder])[0].rows
    origin = f"tiny/{first.folder.name}"
    assert plain.reused == (f"{origin}/default/seed-0", f"{origin}/default/seed-1")
    assert closed.reused == (f"{origin}/closed/seed-0",)
    assert (
        f"Reused trials: 2 from {origin}/default, 1 from {origin}/closed"
        in table_of(of_studies([result.folder])[0]).notes
    )

    # other versions or another device may give other bits
    for journal in first.folder.rglob("journal.jsonl"):
        journal.write_text(journal.read_text().replace('"versions": {', '"versions": {"more": "1", '))
    shutil.rmtree(result.folder)
    assert len(grow(other, reuse=True)[1].trials) == 6


@pytest.mark.slow
def test_an_arm_leaves_and_returns(grow: Grow) -> None:
    """Its files stay; the comparison follows; under another name it is copied, not trained."""
    one_arm = {**ONE, "seeds": 1, "arms": {"default": {}}}
    both = {**one_arm, "arms": {"default": {}, "closed": ONE["arms"]["closed"]}}
    renamed = {**one_arm, "arms": {"default": {}, "another": ONE["arms"]["closed"]}}
    trained = [grow(both)[1].trials]
    for recipe in (one_arm, both, renamed):
        result, display = grow(recipe, resume=True)
        trained.append(display.trials)
        assert [row.arm for row in result.comparison.rows] == list(recipe["arms"])
        assert [row.arm for row in of_studies([result.folder])[0].rows] == list(recipe["arms"])

    assert list(map(len, trained)) == [2, 0, 0, 0]
    assert (result.folder / "closed" / "seed-0" / "weights.safetensors").is_file()
    changed = [entry["changes"] for entry in read_record(result.folder).revisions]
    assert changed == [
        ["arms.closed: removed"],
        ["arms.closed: added"],
        ["arms.closed: removed", "arms.another: added"],
    ]
    assert load(result.folder / "revisions" / "1" / "resolved.yaml") == load(both)
    assert load(result.folder / "resolved.yaml") == load(renamed)
