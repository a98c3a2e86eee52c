"""`mimetic compare`: on a study made by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.study.comparing.comparison import of_studies
from mimetic.study.comparing.questions import Options

Call = Callable[..., Result]


def test_table(quickstart: Path, call: Call) -> None:
    """Mean ± std, paired difference, interval and verdict, as computed by hand from the journals."""
    result = call("compare", "quickstart", "--root", quickstart)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    # per seed, right of 360: 355 − 348, 355 − 350, 351 − 347 → mean 16/3, std 1.528; two arms: t(2) = 6.205
    assert [
        "closed-form-frozen",
        "3",
        "98.24",
        "±",
        "0.64",
        "+1.48",
        "[−0.04,",
        "+3.00]",
        "inconclusive",
    ] in [row[:9] for row in rows]
    assert rows[-2][:4] == ["2", "comparisons", "with", "default:"]
    assert rows[-1] == ["study", str(quickstart / "studies" / "quickstart" / "20261121-032523")]


def test_json(quickstart: Path, call: Call) -> None:
    """JSON alone: what the library computes."""
    folder = quickstart / "studies" / "quickstart" / "20261121-032523"
    result = call("compare", folder, "--json", "--metric", "test/loss", "--baseline", "closed-form")
    expected = of_studies([folder], Options(metrics=("test/loss",), baseline="closed-form"))[0].to_dict()
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))
    assert expected["baseline"] == "closed-form"


def test_the_latest_study_is_taken(quickstart: Path, call: Call) -> None:
    """Without a name the latest of all, with a recipe's name or file the latest of that one."""
    folder = quickstart / "studies" / "quickstart" / "20261121-032523"
    newer = folder.parent / "20261122-000000"
    shutil.copytree(folder, newer)
    recipe = quickstart.parent / "mine.yaml"
    recipe.write_text("recipe: 1\nname: quickstart\n", encoding="utf-8")
    for study in ([], ["quickstart"], [recipe]):
        assert call("compare", *study, "--root", quickstart).stdout.rstrip().endswith(f"study {newer}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quikstart"], "did you mean `quickstart`?"),
        (["zzz"], "there are quickstart"),
        (["quickstart", "--metric", "test/accuracy"], "no trial has the metric `test/accuracy`"),
        (["quickstart", "--baseline", "nope"], "there is no arm `nope`"),
    ],
)
def test_wrong_requests(words: list[str], said: str, quickstart: Path, call: Call) -> None:
    """Each names what there is."""
    result = call("compare", *words, "--root", quickstart)
    assert result.exit_code == 2
    assert said in result.stderr


def test_before_any_run(tmp_path: Path, call: Call) -> None:
    """Says what to run."""
    result = call("compare", "--root", tmp_path)
    assert result.exit_code == 2
    assert "[MIM-X011]" in result.stderr


def test_a_folder_that_is_no_study(tmp_path: Path, call: Call) -> None:
    """Also where its record is damaged."""
    assert "has no study.json" in call("compare", tmp_path).stderr
    (tmp_path / "study.json").write_text("{broken", encoding="utf-8")
    result = call("compare", tmp_path)
    assert result.exit_code == 2
    assert "study.json cannot be read" in result.stderr
