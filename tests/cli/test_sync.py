"""`mimetic sync`: which studies it takes, and what it says of them; the mirror itself is tested in study."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mimetic.errors import UserError
from mimetic.study import sync as library
from mimetic.study.comparing.comparison import of_studies
from mimetic.study.conclusion import StudyResult

Call = Callable[..., Result]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders that are mirrored."""
    found: list[Path] = []

    def mirror(folder: Path, **_: object) -> StudyResult:
        found.append(folder)
        if folder.name == "running":
            raise UserError(f"{folder} is being run by another process; wait for it, or end it")
        statuses = {"a · seed 0": "FINISHED", "a · seed 1": "KILLED", "b · seed 0": "FINISHED"}
        return StudyResult(folder, of_studies([folder])[0], statuses, "http://there", interrupted=False)

    monkeypatch.setattr(library, "sync", mirror)
    return found


def test_all_studies_or_the_latest_of_one(quickstart: Path, taken: list[Path], call: Call) -> None:
    """Each is named with how its trials ended, and where to look."""
    folder = quickstart / "studies" / "quickstart" / "20261121-032523"
    for words in ([], ["quickstart"], [str(folder)]):
        result = call("sync", *words, "--root", quickstart)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[0] == f"{folder}: 3 trials, 2 FINISHED, 1 KILLED"
        expected = f"look     mimetic ui --root {quickstart}   then   http://there"
        assert result.stdout.splitlines()[1] == expected
    assert taken == [folder] * 3


def test_nothing_to_mirror(tmp_path: Path, taken: list[Path], call: Call) -> None:
    """Exit code 2, and the way to a study."""
    result = call("sync", "--root", tmp_path)
    assert (result.exit_code, taken) == (2, [])
    assert "there is no study below" in result.stderr
