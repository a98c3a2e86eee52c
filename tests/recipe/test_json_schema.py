"""The JSON Schema for editors, judged by a small validator of the words it uses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import Issue
from mimetic.config.registry import families, registered
from mimetic.config.text.tree import plain
from mimetic.config.text.yaml_source import parse
from mimetic.recipe.json_schema import json_schema
from mimetic.recipe.shipped import shipped

SCHEMA = json_schema()
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
KNOWN = {
    "$schema",
    "title",
    "description",
    "default",
    "examples",
    "$defs",
    "$ref",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "anyOf",
    "enum",
    "const",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
}


def valid(value: Any, schema: Any) -> bool:
    """Tell whether a value fits a schema."""
    if isinstance(schema, bool):
        return schema
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not valid(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(valid(value, choice) for choice in schema["anyOf"]):
        return False
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        return False
    if "type" in schema and not _is(value, schema["type"]):
        return False
    checks = {dict: _map, list: _list, str: _text, int: _number, float: _number}
    return checks.get(type(value), lambda *_: True)(value, schema)


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and not (isinstance(value, bool) and name != "boolean")


def _map(value: dict[str, Any], schema: Any) -> bool:
    known, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
    return (
        all(key in value for key in schema.get("required", []))
        and all(valid(item, known.get(key, extra)) for key, item in value.items())
        and all(valid(key, schema.get("propertyNames", True)) for key in value)
    )


def _list(value: list[Any], schema: Any) -> bool:
    first, rest = schema.get("prefixItems", []), schema.get("items", True)
    kinds = [*first, *[rest] * (len(value) - len(first))]
    fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
    return fits and all(valid(item, kind) for item, kind in zip(value, kinds, strict=False))


def _text(value: str, schema: Any) -> bool:
    fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    return fits and re.search(schema.get("pattern", ""), value) is not None


def _number(value: float, schema: Any) -> bool:
    inside = schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return inside and schema.get("exclusiveMinimum", value - 1) < value < schema.get(
        "exclusiveMaximum", value + 1
    )


def test_stable() -> None:
    """The same schema comes out each time, in the same order, as JSON."""
    assert json.dumps(json_schema()) == json.dumps(json_schema())  # other tests register components
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_registered_types_are_offered() -> None:
    """Every registered type can be completed by an editor, in its short and its long form."""
    text = json.dumps(SCHEMA)
    for family in families():
        for name in registered(family):
            assert f'"const": "{name}"' in text
    assert set(registered("model")) == set(SCHEMA["properties"]["model"]["anyOf"][0]["enum"])


def test_described() -> None:
    """Every key has a text to show while the pointer rests on it."""
    for name, definition in SCHEMA["$defs"].items():
        for key, schema in definition.get("properties", {}).items():
            assert key == "type" or "description" in schema, (name, key)
    assert all("description" in schema for schema in SCHEMA["properties"].values())


@pytest.mark.parametrize("path", shipped().values(), ids=shipped().keys())
def test_shipped(path: Path) -> None:
    """Every shipped recipe fits the schema."""
    issues: list[Issue] = []
    written = plain(parse(path.read_text(encoding="utf-8"), file=path.name, issues=issues))
    assert not issues
    assert valid(written, SCHEMA)


@pytest.mark.parametrize(
    "recipe",
    [
        {"recipe": 1},
        {"recipe": 1, "extends": "a.yaml", "remove": ["x"], "seeds": 3, "name": "x"},
        {
            "recipe": 1,
            "extends": ["a.yaml"],
            "seeds": [0, 5],
            "arms": {"a": None, "b": {"extends": "a", "remove": "x"}},
        },
        {"recipe": 1, "model": {"dim": 8}, "arms": {"a": {"model": "vgg11"}}},
        {"recipe": 1, "train": {"optimizer": {"lr": 0.1}, "schedule": "cosine"}},
        {
            "recipe": 1,
            "init": [{"id": "x", "freeze": True}, {"id": "y", "scale": 0.5}, {"match": "a", "init": "zeros"}],
        },
        {
            "recipe": 1,
            "init": [
                {"id": "x", "scale": {"gain": 2}, "match": {"kernel_size": 3, "in_channels": {"min": 2}}}
            ],
        },
        {"recipe": 1, "init": [{"id": "x", "covariance": {"width": 0.2}, "freeze": {"statistics": True}}]},
        {"recipe": 1, "stages": {"a": None, "b": {"extends": "a", "seeds": 2, "model": {"dim": 3}}}},
        {"recipe": 1, "init": [{"id": "x", "covariance": {"type": "nfm", "from": {"stage": "a"}}}]},
        {"recipe": 1, "init": [{"id": "x", "covariance": {"from": {"seeds": [1]}, "layers": {"a": "b"}}}]},
        {"recipe": 1, "init": [{"id": "x", "covariance": {"type": "agop", "power": 0.5, "shrink": "auto"}}]},
        {"recipe": 1, "data": {"type": "cifar10", "augment": ["flip", {"type": "crop", "padding": 2}]}},
    ],
)
def test_fits(recipe: dict[str, Any]) -> None:
    """What composition understands, the schema allows: shorthands, parts, extends and remove."""
    assert valid(recipe, SCHEMA)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"recipe": 2},
        {"recipe": 1, "trian": {}},
        {"recipe": 1, "train": {"epochs": "5"}},
        {"recipe": 1, "train": {"epochs": -1}},
        {"recipe": 1, "train": {"lr": 0.1}},
        {"recipe": 1, "model": "resnet18"},
        {"recipe": 1, "model": {"type": "convmixer", "width": 3}},
        {"recipe": 1, "arms": {"a b": {}}},
        {"recipe": 1, "arms": {"a": {"seeds": 3}}},
        {"recipe": 1, "init": {"match": "a"}},
        {"recipe": 1, "stages": {"a": {"baseline": "b"}}},
        {"recipe": 1, "stages": ["a"]},
        {"recipe": 1, "init": [{"covariance": {"type": "nfm", "from": "small"}}]},
        {"recipe": 1, "init": [{"covariance": {"type": "nfm", "from_": {"stage": "a"}}}]},
        {"recipe": 1, "init": [{"covariance": {"type": "agop", "power": 2}}]},
        {"recipe": 1, "init": [{"match": {"kind": "depthwise"}}]},
        {"recipe": 1, "train": {"optimizer": {"type": "adam", "betas": [0.9]}}},
    ],
)
def test_does_not_fit(recipe: dict[str, Any]) -> None:
    """What the loader refuses for its form, the schema refuses too."""
    assert not valid(recipe, SCHEMA)
