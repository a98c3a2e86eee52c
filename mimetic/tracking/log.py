"""Write to a run: tags, metrics, the data set, files, pictures, all within MLflow's limits.

Every function raises RunError if the store does not work.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, NewType, TypeVar

from mimetic.printable import truncate
from mimetic.tracking.store import Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

PARAM_LIMIT = 6000
TAG_LIMIT = 8000
KEY_LIMIT = 250
BATCH_LIMIT = 90
"""Params or tags in one call: fewer than MLflow's hundred, for they share a call with metric points."""
METRIC_LIMIT = 900
"""Metric points in one call; MLflow takes a thousand entries, params and tags included."""

_Item = TypeVar("_Item")

ArtifactAddress = NewType("ArtifactAddress", str)
"""Where the artifacts of a run are. Its id in this place would name a folder below the current one."""

_MOMENT = re.compile(r"-(start|end|epoch-\d+)$")
_IMAGE_FILE = re.compile(r"(.+?)[+%]step[+%](\d+)[+%]timestamp")


def set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run, truncated to MLflow's limits."""
    for batch in batches(list(tags.items()), BATCH_LIMIT):
        log_points(store, run_id, [], tags=dict(batch))


def log_points(
    store: Store,
    run_id: str,
    points: Sequence["Metric"],
    *,
    params: Mapping[str, str] = MappingProxyType({}),
    tags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Log metric points and params and set tags in one call; together at most a thousand."""
    from mlflow.entities import Param, RunTag

    with store_errors(store.uri):
        store.client.log_batch(
            run_id,
            metrics=points,
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in truncate_tags(tags).items()],
        )


def log_metrics(store: Store, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log metrics of a whole run, e.g. those of the comparison, unless it has the same values already."""
    from mlflow.entities import Metric

    with store_errors(store.uri):
        known = store.client.get_run(run_id).data.metrics
    now = int(time.time() * 1000)
    values = {clean_key(key): value for key, value in metrics.items()}
    new = {key: value for key, value in values.items() if repr(known.get(key)) != repr(float(value))}  # NaN
    points = [Metric(key, value, now, 0) for key, value in new.items()]
    for batch in batches(points, METRIC_LIMIT):
        log_points(store, run_id, batch)


def log_dataset(store: Store, run_id: str, *, name: str, digest: str) -> None:
    """Log the data set a run was trained on; MLflow shows its name and digest in a column."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name[:500], digest[:36], "local", "")
    context = InputTag("mlflow.data.context", "training")
    with store_errors(store.uri):
        store.client.log_inputs(run_id, datasets=[DatasetInput(data, [context])])


def log_files(store: Store, artifacts: ArtifactAddress, files: Sequence[Path], *, folder: str = "") -> None:
    """Upload files to the artifacts of a run; their address spares a call that looks the run up.

    Raises:
        RunError: If the store does not work or a file is missing.
    """
    with store_errors(store.uri):
        target = artifacts_at(store, artifacts)
        for path in files:
            target.log_artifact(str(path), folder or None)


def artifacts_of(store: Store, run_id: str) -> ArtifactAddress:
    """Return the address of a run's artifacts."""
    with store_errors(store.uri):
        return ArtifactAddress(store.client.get_run(run_id).info.artifact_uri)


def artifacts_at(store: Store, address: ArtifactAddress) -> "ArtifactRepository":
    """Open the artifacts of a run, as MLflow's client does."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    full = add_databricks_profile_info_to_artifact_uri(address, store.uri)
    return get_artifact_repository(full, tracking_uri=store.uri)


def log_json(store: Store, artifacts: ArtifactAddress, content: Mapping[str, object], *, file: str) -> None:
    """Upload plain values as a JSON file to the artifacts of a run."""
    with TemporaryDirectory() as folder:
        path = Path(folder, file)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        log_files(store, artifacts, [path])


def truncate_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags within MLflow's limits."""
    return {clean_key(key): truncate(str(value), TAG_LIMIT) for key, value in tags.items()}


def log_picture(
    store: Store, run_id: str, path: Path, *, epoch: int, logged: set[tuple[str, int]]
) -> list[str]:
    """Log a picture under `pictures/<name>` at an epoch, unless the run has it, and return notes.

    MLflow shows images logged under one key as a chart with a slider over steps.

    `-start`, `-end` or `-epoch-3` at the end of the name of the PNG file is not part of the key. A picture of
    the start belongs to epoch 0. `logged` has (key, epoch) of the run's pictures; the new one is added.
    """
    from PIL import Image, UnidentifiedImageError

    stem = path.stem
    key = clean_key(f"pictures/{_MOMENT.sub('', stem)}")
    step = 0 if stem.endswith("-start") else epoch
    if (key, step) in logged:
        return []
    try:
        with Image.open(path, formats=("PNG",)) as file:
            picture = file.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError):  # what Pillow raises for damaged files
        return [f"{path} is not a picture: uploaded as a plain file"]
    store.client.log_image(run_id, picture, key=key, step=step)
    logged.add((key, step))
    return []


def logged_pictures(store: Store, artifacts: ArtifactAddress) -> set[tuple[str, int]]:
    """Return (key, step) of a run's pictures, parsed from MLflow's file names."""
    listed = artifacts_at(store, artifacts).list_artifacts("images")
    names = (str(item.path).rpartition("/")[2] for item in listed)
    found = map(_IMAGE_FILE.match, names)
    return {(m[1].replace("~", "/").replace("#", "/"), int(m[2])) for m in found if m is not None}


def flatten(values: Mapping[str, object], *, prefix: str = "") -> dict[str, str]:
    """Return nested settings as flat strings, `{"optimizer": {"lr": 0.1}}` as `optimizer.lr = 0.1`.

    Lists become JSON; None and empty lists are left out.
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{key}.")
        elif value is not None and value not in ([], ()):
            flat[clean_key(key)] = truncate(_text(value), PARAM_LIMIT)
    return flat


def clean_key(key: str) -> str:
    """Return a key of the characters that MLflow accepts: letters, digits and `_-. /`."""
    return re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII)[:KEY_LIMIT]


def batches(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)
