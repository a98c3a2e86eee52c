"""Notebooks: what is shown of plans and results, progress, and the notebook of docs/."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

import mimetic
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.graph.site import Geometry
from mimetic.graph.sites import find_sites
from mimetic.study.comparing.own import compare
from mimetic.study.conclusion import StudyResult
from mimetic.study.layout import Trial
from mimetic.study.notebook import NotebookDisplay, in_notebook

FOREIGN = "<script>\x1b"
ROOT = Path(__file__).parents[2]


def shown() -> dict[str, object]:
    """Return one object of each class that a notebook shows, with foreign names where there are any."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *(nn.Conv2d(4, 4, 3) for _ in range(40)))
    recipe = mimetic.load({"recipe": 1, "init": [{"match": {"kind": "conv"}, "init": "orthogonal"}]})
    rows = [{"arm": arm, "seed": s, "value": s + 0.1} for arm in ("base", FOREIGN) for s in range(3)]
    layer = Harvested(FOREIGN, "conv", 0.0, Geometry(1, 4, (3, 3), (1, 1)), closed_form((3, 3), 0.4))
    comparison = compare(rows, metric="test/acc")
    found = {
        "recipe": recipe,
        "graph": find_sites(nn.ModuleDict({"<b>": model})),
        "plan": mimetic.plan(model, recipe),
        "harvest": Harvest(FOREIGN, "nfm", (layer,), spatial=True),
        "comparison": comparison,
    }
    result = StudyResult(Path(FOREIGN), comparison, {"a": "FINISHED", "b": "FAILED"}, "javascript:x", False)
    return found | {"result": result}


def test_every_object_is_a_line_and_a_table() -> None:
    """`repr` is short; the page is a table in which nothing of a stranger is markup."""
    for name, thing in shown().items():
        line, page = repr(thing), thing._repr_html_()
        assert len(line) < 200, name
        assert "\n" not in line, name
        assert "<table>" in page, name
        for markup in ("<script", "<b>", "\x1b", "javascript:x"):
            assert markup not in page, name


class Cell:
    """The output of a cell, as IPython would update it."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def update(self, page: str) -> None:
        """Receive a page."""
        self.pages.append(page)


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar for the study, one for each running trial, a line for what ended; text is escaped."""
    cell, study = Cell(), Trial(FOREIGN, "a<b>", 0)
    display = SimpleNamespace(HTML=str, display=lambda _first, display_id: cell if display_id else None)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    shown = NotebookDisplay(metric="test/acc")
    shown.start(Path(FOREIGN), [study])
    shown.message("compiled")
    shown._drawn = float("-inf")
    shown.update(study, [{"event": "progress", "step": 5, "steps": 20, "epoch": 1}])
    running = cell.pages[-1]
    shown.update(study, [{"event": "epoch", "metrics": {"test/acc": 0.9667}}])
    shown.update(study, [{"event": "end", "status": "FINISHED", "reason": None, "seconds": 8.2}])

    assert running.count('<progress value="0.2500" max="1">') == 2
    assert "a&lt;b&gt; · seed 0, epoch 1" in running
    assert "compiled" in running
    assert "a&lt;b&gt; · seed 0: FINISHED in 8 s, test/acc 96.67%" in cell.pages[-1]
    assert "1/1 trials" in cell.pages[-1]
    assert "<script" not in "".join(cell.pages)
    shown.start(Path("study"), [study])  # the study, after its selection
    assert "0/1 trials" in cell.pages[-1]


def test_what_a_notebook_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel, not the IPython of a terminal."""
    shells = {True: SimpleNamespace(kernel=1), False: None}
    for is_notebook, shell in shells.items():
        module = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", module)
        assert in_notebook() is is_notebook


@pytest.mark.slow
def test_the_first_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/first-study.ipynb runs from its first cell to its last, with progress and tables."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "docs" / "first-study.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = ["".join(o["data"].get("text/html", "")) for o in outputs if "data" in o]

    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert [page.count("<table>") for page in pages] == [1, 1, 0, 1, 0]
    assert "4/4 trials" in pages[2]
