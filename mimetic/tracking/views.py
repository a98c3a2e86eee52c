"""Save views in MLflow: its chart page, opened on a study's arms instead of on the ten newest runs.

A view is an experiment tag `mlflow.sharedViewState.<id>` that holds the page's state as JSON. The format is
MLflow's own and undocumented (read from the UI of 3.17). So views are best effort: a study never fails
because of one, and a store that ignores the tag shows its default page. A filter beside the view in the
address would disable the view, so each study has its own; the oldest are removed.
"""

import json
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode
from uuid import NAMESPACE_URL, uuid5

from mimetic.errors import RunError
from mimetic.files import JsonObject
from mimetic.metrics import metric as metric_of
from mimetic.metrics import related
from mimetic.tracking.log import set_tags
from mimetic.tracking.runs import KIND, STUDY
from mimetic.tracking.store import EXPERIMENT_TAG_LIMIT, NOTE, Store, store_errors
from mimetic.tracking.uploader import BEST

ARMS = "arms"
FILTERS = "filters"
TITLES: Mapping[str, str] = {ARMS: "Arms", FILTERS: "Filters"}
RESULT = "mimetic.result"
"""Tag of an experiment: run and artifact of its latest result."""
MAX_STUDIES = 20
"""Studies of an experiment that have views: MLflow sends every tag with the experiment."""

_TRAINING = {"workflowType": "machine_learning"}
"""Without it MLflow opens its pages for language models, whatever the experiment's kind: the page (of 3.17)
reads this parameter, then the browser's own last choice, and the tag `mlflow.experimentKind` no more."""
_TAG = "mlflow.sharedViewState."
_COLUMNS = ("params.`arm`", "params.`seed`")
"""MLflow adds start and duration."""
_MLFLOW_COLUMNS = ("1", "attributes.`Run Name`", "runDateAndNestInfo")
"""Ids of the columns that MLflow puts first: boxes, names and start."""
_WIDTHS = {"attributes.`Run Name`": 170, "params.`arm`": 90, "params.`seed`": 55, "duration": 75}
"""Pixels. As wide as MLflow makes them, the last columns are beyond a screen of 1440 pixels."""
_PICTURES = ("pictures/filters", "pictures/covariance")


def save_views(store: Store, study: str, *, metric: str) -> str | None:
    """Save the views of a study, and return why that failed, if it did.

    The ids of studies sort by time. The metric is charted first, and the runs are sorted by it.
    """
    now = int(time.time() * 1000)
    states = {ARMS: arms_state(study, metric), FILTERS: filters_state(study, metric)}
    try:
        with store_errors(store.uri):
            for view, state in states.items():
                shared = {"name": f"{TITLES[view]} · {study}", "createdAt": now, "updatedAt": now}
                tag = json.dumps(shared | {"state": json.dumps(state)})
                if len(tag) <= EXPERIMENT_TAG_LIMIT:
                    store.client.set_experiment_tag(store.experiment_id, f"{_TAG}{view_id(view, study)}", tag)
            _remove_old(store)
    except RunError as error:
        return str(error)
    return None


def view_id(view: str, study: str) -> str:
    """Return the id of a study's view."""
    return f"{view}-{study}"


def view_link(
    base: str, experiment_id: str, *, study: str | None = None, view: str = ARMS, mode: str = "CHART"
) -> str:
    """Return the address of a study's saved view, or of the experiment's charts without a study.

    `mode` is `CHART`, or `TABLE` for the table of the runs.
    """
    query = {} if study is None else {"viewStateShareKey": view_id(view, study)}
    query |= {"compareRunsMode": mode, **_TRAINING}
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def result_link(base: str, experiment_id: str, *, run: str, file: str) -> str:
    """Return the address of an artifact of a run, shown in MLflow's page of the run."""
    path = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run}/artifacts/{quote(file)}"
    return f"{path}?{urlencode(_TRAINING)}"


def experiment_link(base: str, experiment_id: str, tags: Mapping[str, str]) -> str:
    """Return the address of the latest result of an experiment; of its charts where there is none yet."""
    run, _, file = tags.get(RESULT, "").partition("/")
    if run and file:
        return result_link(base, experiment_id, run=run, file=file)
    return view_link(base, experiment_id, study=latest_study(tags))


def save_result(store: Store, study: str, note: str, *, run: str, file: str) -> None:
    """Describe the result of a study on its summary run, and on the experiment if it is the latest study.

    MLflow shows the first line of an experiment's description on all of its pages. The note is Markdown.

    Raises:
        RunError: If the store does not work.
    """
    set_tags(store, run, {NOTE: note})
    with store_errors(store.uri):
        if latest_study(store.client.get_experiment(store.experiment_id).tags) == study:
            for key, value in {NOTE: note[:EXPERIMENT_TAG_LIMIT], RESULT: f"{run}/{file}"}.items():
                store.client.set_experiment_tag(store.experiment_id, key, value)


def latest_study(tags: Mapping[str, str]) -> str | None:
    """Return the newest study that has a view among an experiment's tags."""
    return max(_studies(tags), default=None)


def arms_state(study: str, metric: str) -> JsonObject:
    """Return the page's state with a chart per metric and a line per trial in the colour of its arm.

    The trials are not grouped: MLflow picks the colours of groups, two of them the same, and ignores ours.
    """
    charts = [
        _chart("LINE", name, metricKey=name, selectedMetricKeys=[name], lineSmoothness=0)
        for name in related(metric)
    ]
    return _page(study, metric, charts, columns=2, height=360)


def filters_state(study: str, metric: str) -> JsonObject:
    """Return the page's state with a chart for each kind of picture; grouping would hide pictures."""
    charts = [_chart("IMAGE", key, imageKeys=[key], step=0, showRunParams=False) for key in _PICTURES]
    return _page(study, metric, charts, columns=1, height=720)


def _page(study: str, metric: str, charts: Sequence[JsonObject], *, columns: int, height: int) -> JsonObject:
    names = dict.fromkeys(_section(chart["displayName"]) for chart in charts)
    shown = [*_COLUMNS, *(f"metrics.`{name}`" for name in (metric, f"{BEST}{metric}"))]
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
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": not metric_of(metric).higher_is_better,
        "groupBy": None,
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "selectedColumns": shown,
        "columnOrder": [*_MLFLOW_COLUMNS, *shown, "duration"],
        "columnWidths": _WIDTHS,
    }


def _chart(kind: str, key: str, **fields: object) -> JsonObject:
    return {
        "uuid": _uuid(kind, key),
        "type": kind,
        "displayName": key,
        "metricSectionId": _uuid("section", _section(key)),
        "deleted": False,
        "isGenerated": True,  # hidden if no run has such a metric
        "runsCountToCompare": 100,
        **fields,
    }


def _section(key: str) -> str:
    return key.rpartition("/")[0] if "/" in key else "Model metrics"


def _remove_old(store: Store) -> None:
    tags = store.client.get_experiment(store.experiment_id).tags
    for study in sorted(_studies(tags))[:-MAX_STUDIES]:
        for view in TITLES:
            key = f"{_TAG}{view_id(view, study)}"
            if key in tags:
                store.client.delete_experiment_tag(store.experiment_id, key)


def _studies(tags: Mapping[str, str]) -> set[str]:
    prefix = f"{_TAG}{ARMS}-"
    return {key.removeprefix(prefix) for key in tags if key.startswith(prefix)}


def _uuid(*parts: str) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(("mimetic", *parts))))
