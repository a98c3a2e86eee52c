"""What is written into a run: tags, points of metrics, the data set, files."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mimetic.tracking.store import Store
from mimetic.tracking.trouble import store_trouble
from mimetic.tracking.values import BATCH_LIMIT, METRIC_LIMIT, TAG_LIMIT, batches, clean_key, cut

if TYPE_CHECKING:
    from mlflow.entities import Metric


def set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, cut to what MLflow holds.

    Raises:
        RunError: If the store does not work.
    """
    for batch in batches(list(tags.items()), BATCH_LIMIT):
        log_points(store, run_id, [], tags=dict(batch))


def log_points(store: Store, run_id: str, points: Sequence["Metric"], *, tags: Mapping[str, str]) -> None:
    """Log points of metrics and set tags in one call; together at most a thousand.

    Raises:
        RunError: If the store does not work.
    """
    from mlflow.entities import RunTag

    with store_trouble(store.uri):
        store.client.log_batch(run_id, metrics=points, tags=[RunTag(*item) for item in fitting(tags).items()])


def log_metrics(store: Store, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Log figures of a whole run, e.g. those of the comparison.

    Raises:
        RunError: If the store does not work.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [Metric(clean_key(key), value, now, step) for key, value in metrics.items()]
    for batch in batches(points, METRIC_LIMIT):
        log_points(store, run_id, batch, tags={})


def log_dataset(store: Store, run_id: str, *, name: str, digest: str, source: str = "") -> None:
    """Say which data a run was trained on; MLflow shows name and digest in a column of their own.

    Raises:
        RunError: If the store does not work.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name[:500], digest[:36], "local", source)
    context = InputTag("mlflow.data.context", "training")
    with store_trouble(store.uri):
        store.client.log_inputs(run_id, datasets=[DatasetInput(data, [context])])


def log_files(store: Store, run_id: str, files: Mapping[str, str] | list[str], *, folder: str = "") -> None:
    """Upload files into the run's artifacts.

    Args:
        store: The open store.
        run_id: The run.
        files: Paths, or path → folder among the artifacts.
        folder: The folder among the artifacts where `files` gives none.

    Raises:
        RunError: If the store does not work or a file is missing.
    """
    placed = files if isinstance(files, Mapping) else dict.fromkeys(files, folder)
    with store_trouble(store.uri):
        for path, place in placed.items():
            store.client.log_artifact(run_id, str(path), place or None)


def fitting(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as MLflow can hold them."""
    return {clean_key(key): cut(str(value), TAG_LIMIT) for key, value in tags.items()}
