"""Pictures with a step slider: MLflow shows images logged under one key as a chart over steps."""

import re
from pathlib import Path
from typing import Any

from mimetic.tracking.store import Store
from mimetic.tracking.values import clean_key

_MOMENT = re.compile(r"-(start|end|epoch-\d+)$")
_FOLDER = "images"


def log_picture(
    store: Store, run_id: str, path: Path, *, epoch: int, logged: set[tuple[str, int]]
) -> list[str]:
    """Log a picture file under `pictures/<name>` at an epoch, unless the run has it; return notes.

    Args:
        store: The open store.
        run_id: The run.
        path: PNG file; a moment at the end of its name (`filters-start`) is not part of the key.
        epoch: The epoch it was drawn after; one drawn at the start belongs to epoch 0.
        logged: (key, epoch) of the pictures the run has; the new one is added.
    """
    stem = path.stem
    key = clean_key(f"pictures/{_MOMENT.sub('', stem)}")
    step = 0 if stem.endswith("-start") else epoch
    if (key, step) in logged:
        return []
    picture = _read(path)
    if picture is None:
        return [f"{path} is no picture: uploaded as a plain file"]
    store.client.log_image(run_id, picture, key=key, step=step)
    logged.add((key, step))
    return []


def logged_pictures(store: Store, run_id: str) -> set[tuple[str, int]]:
    """Return (key, step) of the pictures a run has, read from MLflow's file names."""
    names = (_name(item) for item in store.client.list_artifacts(run_id, _FOLDER))
    found = (re.match(r"(.+?)[+%]step[+%](\d+)[+%]timestamp", name) for name in names)
    return {(m[1].replace("~", "/").replace("#", "/"), int(m[2])) for m in found if m is not None}


def _name(item: Any) -> str:
    return str(item.path).rpartition("/")[2]


def _read(path: Path) -> Any:
    """Return the picture in a file, None where it is broken."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError):  # Pillow's words for damage
        return None
