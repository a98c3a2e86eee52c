"""The JSON Schema of a recipe file, for editors: completion, hover texts and squiggles while typing.

It describes a file *before* composition: what a rule or an arm leaves out may be inherited, so nothing
but the version is required. Only `mimetic validate` decides; the schema helps to write.
"""

from typing import Any

from mimetic.config.base import NAME_PATTERN
from mimetic.recipe.compose.group import ARM_KEYS, ARMS, FILE_KEYS, GROUPS, STAGES, Group
from mimetic.recipe.compose.layer import VERSION
from mimetic.recipe.recipe import Recipe

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_COMPOSING: dict[str, dict[str, Any]] = {
    "extends": {**_NAMES, "description": "Files this one is merged over, relative to it; later ones win."},
    "remove": {**_NAMES, "description": "Ids of inherited rules to leave out."},
}
_SWEEP = {
    "type": "object",
    "description": "Values by path, e.g. `train.optimizer.lr: [0.003, 0.01]`: an arm per combination.",
    "additionalProperties": {"type": "array", "minItems": 1},
}
_MEMBERS = {
    ARMS.key: ("Arm", "A named variant: its changes to the recipe, or to another arm."),
    STAGES.key: (
        "Stage",
        "A training to be harvested: its changes to the recipe, or to another stage.",
    ),
}
"""Name and text of a group's definition in the schema."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file, types of plugins included.

    Guarantee: the same keys in the same order each time, so that the text can be compared.
    """
    # 1. Pydantic describes a composed recipe; before composition nothing is required.
    composed = Recipe.model_json_schema(by_alias=True, mode="validation")
    definitions = _loosened(composed["$defs"])
    head = _loosened(composed["properties"])
    properties = {key: definitions.pop(name)["properties"] for key, (name, _) in _MEMBERS.items()}
    # 2. Arms and stages may leave out what they inherit.
    for key, group in GROUPS.items():
        name, description = _MEMBERS[key]
        definitions[name] = _closed(_member(group, properties[key]), description)
    # 3. The top of a file has the keys that all arms share, and those of composition.
    shared = {key: properties[ARMS.key][key] for key in ARM_KEYS}
    own: dict[str, Any] = {"recipe": {"const": VERSION, "description": "Version of the language."}}
    own |= {key: _members(group, head[key]["description"]) for key, group in GROUPS.items()}
    known = {**head, **shared, **_COMPOSING, **own}
    return {
        "$schema": DRAFT,
        "title": "mimetic recipe",
        **_closed(
            {key: known[key] for key in FILE_KEYS}, "A recipe: what is trained, from which initializations."
        ),
        "required": ["recipe"],
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def _member(group: Group, properties: dict[str, Any]) -> dict[str, Any]:
    extends = {
        "type": "string",
        "description": f"The {group.noun} this one starts as a copy of.",
    }
    known = {**properties, **_COMPOSING, "extends": extends, "sweep": _SWEEP}
    return {key: known[key] for key in group.layer_keys}


def _members(group: Group, description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{description.rstrip('.')}, by name.",
        "propertyNames": {"pattern": NAME_PATTERN},
        "additionalProperties": {"anyOf": [{"$ref": f"#/$defs/{_MEMBERS[group.key][0]}"}, {"type": "null"}]},
    }


def _closed(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
    }


def _loosened(schema: Any, *, names: bool = True) -> Any:
    """Return a schema in which nothing is required and a map without `type` may be of several types.

    With `names` the keys of this map are the user's, not words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_loosened(item, names=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: _loosened(value, names=False) for key, value in schema.items()}
    loose = {}
    for key, value in schema.items():
        if key in {"required", "discriminator", "title"}:
            continue
        loose["anyOf" if key == "oneOf" else key] = _loosened(value, names=key in {"properties", "$defs"})
    return _flattened(loose)


def _flattened(schema: dict[str, Any]) -> dict[str, Any]:
    """Flatten choices among choices."""
    if "anyOf" not in schema:
        return schema
    choices: list[Any] = []
    for choice in schema["anyOf"]:
        inner = choice["anyOf"] if set(choice) == {"anyOf"} else [choice]
        choices += [item for item in inner if item not in choices]
    return {**schema, "anyOf": choices}
