"""Saved views: the page's state for a study, and links to it."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mimetic.metrics import related
from mimetic.tracking import views
from mimetic.tracking.store import Store

STUDY = "20261121-021500"


def saved(store: Store) -> dict[str, dict[str, Any]]:
    """Return the saved views of the experiment, state unpacked."""
    tags = store.client.get_experiment(store.experiment_id).tags
    start = "mlflow.sharedViewState."
    found = {key.removeprefix(start): json.loads(text) for key, text in tags.items() if key.startswith(start)}
    return {key: shared | json.loads(shared["state"]) for key, shared in found.items()}


def test_a_study_gets_two_views(store: Store) -> None:
    """Charts and pictures of the study's trials alone; grouped, MLflow would ignore the arms' colours."""
    assert views.save_views(store, STUDY, metric="test/acc") is None

    found = saved(store)
    assert {key: view["name"] for key, view in found.items()} == {
        f"arms-{STUDY}": f"Arms · {STUDY}",
        f"filters-{STUDY}": f"Filters · {STUDY}",
    }
    for view in found.values():
        assert view["searchFilter"] == f"tags.`mimetic.kind` = 'trial' AND tags.`mimetic.study` = '{STUDY}'"
        assert view["runsHiddenMode"] == "SHOW_ALL"
        assert view["groupBy"] is None


@pytest.mark.parametrize("metric", ["test/acc", "val/loss", "test/acc_len64", "lr"])
def test_views_follow_the_metric_of_the_study(store: Store, metric: str) -> None:
    """It is charted first and shown as a column, and the best runs come first."""
    views.save_views(store, STUDY, metric=metric)

    for view in saved(store).values():
        columns = ["params.`arm`", "params.`seed`", f"metrics.`{metric}`", f"metrics.`best/{metric}`"]
        assert view["selectedColumns"] == columns
        assert view["columnOrder"][-5:] == [*columns, "duration"]
        assert set(view["columnWidths"]) <= set(view["columnOrder"])  # others are ignored
        assert view["orderByKey"] == f"metrics.`{metric}`"
        assert view["orderByAsc"] == (metric not in {"test/acc", "test/acc_len64"})
    charts = [chart["metricKey"] for chart in saved(store)[f"arms-{STUDY}"]["compareRunCharts"]]
    assert charts == list(related(metric))
    assert charts[0] == metric


def test_charts_lie_in_sections_that_exist(store: Store) -> None:
    """A chart without its section would not be drawn."""
    views.save_views(store, STUDY, metric="lr")

    view = saved(store)[f"arms-{STUDY}"]
    sections = {section["uuid"]: section["name"] for section in view["compareRunSections"]}
    placed = {chart["metricKey"]: sections[chart["metricSectionId"]] for chart in view["compareRunCharts"]}
    assert placed == {"lr": "Model metrics", "train/acc": "train", "train/loss": "train"}


def test_a_link_opens_a_view_as_a_chart_page() -> None:
    """No filter stands beside the key: it would switch the view off."""
    link = views.view_link("http://127.0.0.1:5000/", "7", study=STUDY)

    path, _, query = urlsplit(link).fragment.partition("?")
    assert link.startswith("http://127.0.0.1:5000/#/")
    assert path == "/experiments/7/runs"
    assert parse_qs(query) == {
        "viewStateShareKey": [f"arms-{STUDY}"],
        "compareRunsMode": ["CHART"],
        "workflowType": ["machine_learning"],
    }


def test_the_result_of_the_latest_study_describes_the_experiment(store: Store) -> None:
    """An older study that is synced does not replace it."""
    for study in ("x/20261101-000000", "x/20261102-000000"):
        views.save_views(store, study, metric="test/acc")
    run = store.client.create_run(store.experiment_id).info.run_id

    views.save_result(store, "x/20261102-000000", "**a is better**", run=run, file="report.html")
    views.save_result(store, "x/20261101-000000", "**b is better**", run=run, file="report.html")

    assert store.client.get_run(run).data.tags["mlflow.note.content"] == "**b is better**"
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.note.content"] == "**a is better**"
    assert views.experiment_link("http://h", "7", tags) == (
        f"http://h/#/experiments/7/runs/{run}/artifacts/report.html?workflowType=machine_learning"
    )


def test_old_views_are_taken_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow sends all tags of an experiment with every page."""
    monkeypatch.setattr(views, "MAX_STUDIES", 2)
    for day in (1, 2, 3):
        views.save_views(store, f"2026110{day}-000000", metric="test/acc")

    assert sorted(saved(store)) == [
        "arms-20261102-000000",
        "arms-20261103-000000",
        "filters-20261102-000000",
        "filters-20261103-000000",
    ]
    tags = store.client.get_experiment(store.experiment_id).tags
    assert views.latest_study(tags) == "20261103-000000"


def test_a_view_that_fails_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format is not ours: a study goes on, and the reason is returned."""

    def refuse(*_: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(store.client, "set_experiment_tag", refuse)

    told = views.save_views(store, STUDY, metric="test/acc")

    assert told is not None
    assert "refused" in told
