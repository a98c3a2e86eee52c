"""Values as MLflow can hold them: flat strings, of bounded length, under clean keys."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

PARAM_LIMIT = 6000
TAG_LIMIT = 8000
KEY_LIMIT = 250
BATCH_LIMIT = 100
"""Params or tags in one call."""
METRIC_LIMIT = 900
"""Points of metrics in one call; MLflow takes a thousand things, tags included."""

_Item = TypeVar("_Item")


def flatten(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Return nested settings as flat strings, `{"optimizer": {"lr": 0.1}}` as `optimizer.lr = 0.1`.

    Lists become JSON; what is None or empty is left out.
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{key}.")
        elif value is not None and value not in ([], ()):
            flat[clean_key(key)] = cut(_text(value), PARAM_LIMIT)
    return flat


def clean_key(key: str) -> str:
    """Return a key of the characters MLflow takes: letters, digits and `_-. /`."""
    return re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII)[:KEY_LIMIT]


def cut(text: str, limit: int) -> str:
    """Return the text, its end replaced by an ellipsis where it is longer than the limit."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


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
