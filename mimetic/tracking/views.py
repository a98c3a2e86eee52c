"""Saved views: MLflow's chart page, opened on a study's arms instead of on the ten newest runs.

A view is an experiment tag `mlflow.sharedViewState.<id>` holding the page's state as JSON. The format is
MLflow's own and not documented (read from the interface of 3.17), so views are best effort: a study never
fails over one, and a store that ignores the tag shows its default page. A filter beside the view in the
address would switch the view off, so each study has views of its own; the oldest are taken away.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode
from uuid import NAMESPACE_URL, uuid5

from mimetic.errors import RunError
from mimetic.tracking.runs import KIND, STUDY
from mimetic.tracking.store import EXPERIMENT_TAG_LIMIT, Store
from mimetic.tracking.trouble import store_trouble

ARMS = "arms"
FILTERS = "filters"
NAMES: Mapping[str, str] = {ARMS: "Arms, mean over seeds", FILTERS: "Filters"}
KEPT = 20
"""Studies of an experiment that keep their views."""

_TAG = "mlflow.sharedViewState."
_METRICS = ("test/acc", "test/loss", "train/acc", "train/loss")  # the page adds what else is there
_PICTURES = ("pictures/filters", "pictures/covariance")


def save_views(
    store: Store, study: str, *, metrics: Sequence[str] = _METRICS, pictures: Sequence[str] = _PICTURES
) -> str | None:
    """Write the saved views of a study, and return why that failed, if it did.

    Args:
        store: The open store.
        study: Id of the study; ids sort by time.
        metrics: Metrics to chart first.
        pictures: Keys of pictures to chart.
    """
    states = {ARMS: arms_state(study, metrics), FILTERS: filters_state(study, pictures)}
    try:
        with store_trouble(store.uri):
            for view, state in states.items():
                tag = _shared(f"{NAMES[view]} · {study}", state)
                if len(tag) <= EXPERIMENT_TAG_LIMIT:
                    store.client.set_experiment_tag(store.experiment_id, f"{_TAG}{view_id(view, study)}", tag)
            _prune(store)
    except RunError as error:
        return str(error)
    return None


def view_id(view: str, study: str) -> str:
    """Return the id of a study's view."""
    return f"{view}-{study}"


def view_link(base: str, experiment_id: str, *, study: str | None = None) -> str:
    """Return the address of the saved view of a study's arms, or of the experiment's charts without a study.

    Args:
        base: Address of the server, e.g. `http://127.0.0.1:5000`.
        experiment_id: The experiment.
        study: Id of the study.
    """
    words = {} if study is None else {"viewStateShareKey": view_id(ARMS, study)}
    # without the workflow type the page opens on MLflow's half for language models
    words |= {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(words, quote_via=quote)}"


def latest_study(tags: Mapping[str, str]) -> str | None:
    """Return the newest study that has a view among an experiment's tags."""
    return max(_studies(tags), default=None)


def arms_state(study: str, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the page's state with one line for each arm, its mean over seeds, in a chart per metric."""
    arm = {"mode": "param", "groupByData": "arm"}
    charts = [
        _chart("LINE", metric, metricKey=metric, selectedMetricKeys=[metric], lineSmoothness=0)
        for metric in metrics
    ]
    page = _page(study, charts, columns=2, height=360)
    return page | {"groupBy": {"aggregateFunction": "average", "groupByKeys": [arm]}}


def filters_state(study: str, pictures: Sequence[str]) -> dict[str, Any]:
    """Return the page's state with a chart for each kind of picture; they vanish where runs are grouped."""
    charts = [_chart("IMAGE", key, imageKeys=[key], step=0, showRunParams=False) for key in pictures]
    return _page(study, charts, columns=1, height=720) | {"groupBy": None}


def _page(study: str, charts: list[dict[str, Any]], *, columns: int, height: int) -> dict[str, Any]:
    names = list(dict.fromkeys(_section(chart["displayName"]) for chart in charts))
    sections = [
        {
            "uuid": _uuid("section", name),
            "name": name,
            "display": True,
            "isReordered": False,
            "deleted": False,
            "columns": columns,
            "cardHeight": height,
        }
        for name in names
    ]
    return {
        "searchFilter": f"tags.`{KIND}` = 'trial' AND tags.`{STUDY}` = '{study}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "runsHiddenMode": "SHOW_ALL",
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "selectedColumns": ["params.`arm`", "params.`seed`", "metrics.`test/acc`"],
    }


def _chart(kind: str, key: str, **fields: Any) -> dict[str, Any]:
    return {
        "uuid": _uuid(kind, key),
        "type": kind,
        "displayName": key,
        "metricSectionId": _uuid("section", _section(key)),
        "deleted": False,
        "isGenerated": True,  # hidden, and not asked for, where a run has no such metric
        "runsCountToCompare": 100,
        **fields,
    }


def _section(key: str) -> str:
    return key.rpartition("/")[0] if "/" in key else "Model metrics"


def _shared(name: str, state: Mapping[str, Any]) -> str:
    now = int(time.time() * 1000)
    shared = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return json.dumps(shared)


def _prune(store: Store) -> None:
    """Take away the views of all but the newest studies: MLflow sends every tag with the experiment."""
    tags = store.client.get_experiment(store.experiment_id).tags
    for study in sorted(_studies(tags))[:-KEPT]:
        for view in NAMES:
            key = f"{_TAG}{view_id(view, study)}"
            if key in tags:
                store.client.delete_experiment_tag(store.experiment_id, key)


def _studies(tags: Mapping[str, str]) -> set[str]:
    start = f"{_TAG}{ARMS}-"
    return {key.removeprefix(start) for key in tags if key.startswith(start)}


def _uuid(*parts: str) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(("mimetic", *parts))))
