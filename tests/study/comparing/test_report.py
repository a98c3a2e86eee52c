"""The HTML page of a comparison."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mimetic.study.comparing.comparison import of_studies
from mimetic.study.comparing.report import plan_table, report
from mimetic.study.comparing.results import read_results
from mimetic.study.comparing.tables import headline

MARKUP = "<script>alert(1)</script>\"'&"


class Elements(HTMLParser):
    """Collects the elements of a page and what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        self.tags.add(tag)
        self.references += [str(value) for name, value in attrs if name in {"src", "href"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a study whose record, plans and pictures hold markup."""
    study = tmp_path / "quickstart" / "20261121-032523"
    record = {
        "arms": ["default", "mine"],
        "seeds": [0, 1],
        "baseline": "default",
        "metric": "test/acc",
        "data": {},
        "environment": {"processor": MARKUP},
        "source": "",
    }
    for arm, gain in (("default", 0.0), ("mine", 0.25)):
        for seed in (0, 1):
            place = study / arm / f"seed-{seed}"
            (place / "pictures").mkdir(parents=True)
            (place / "pictures" / "filters-start.png").write_bytes(b"\x89PNG")
            events = [
                {"event": "start", "time": 0.0},
                {"event": "epoch", "time": 1.0, "epoch": 1, "metrics": {"test/acc": 0.5 + gain}},
                {"event": "end", "time": 2.0, "status": "FINISHED", "seconds": 1.0},
            ]
            (place / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        entry = {"parameter": MARKUP, "initializer": arm, "arguments": {}, "frozen": False, "rule": "r"}
        (study / arm / "plan.json").write_text(json.dumps({"entries": [entry]}))
    (study / "study.json").write_text(json.dumps(record))
    return study


def test_the_page_needs_no_other_file_and_runs_nothing(folder: Path) -> None:
    """Foreign text is text; pictures are in the page."""
    page = report(of_studies([folder]), {folder: read_results(folder)})
    elements = Elements()
    elements.feed(page)

    assert not elements.tags & {"script", "iframe", "link", "object", "embed", "form", "a"}
    assert MARKUP not in page
    assert page.count("&lt;script&gt;") == 2
    assert len(elements.references) == 4
    assert all(reference.startswith("data:image/png;base64,") for reference in elements.references)
    assert "mine" in headline(of_studies([folder])[0])


def test_plans_that_are_missing_or_damaged_are_left_out(folder: Path) -> None:
    """The rest of the page is made."""
    found = plan_table(folder, "default", "mine")
    assert found is not None
    assert found.rows == ((MARKUP, "default()", "mine()"),)
    (folder / "mine" / "plan.json").write_text('{"entries": [3]}')
    assert plan_table(folder, "default", "mine") is None
