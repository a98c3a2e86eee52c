"""Whatever is written, the answer is a recipe or its errors: no other exception."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mimetic.config.errors import RecipeError
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load, loads

SOURCES = [
    path.read_text(encoding="utf-8", errors="replace")
    for path in (Path(__file__).parent / "wrong").glob("*.yaml")
]
PIECES = [
    "recipe: 1\n",
    "init:",
    "\n- ",
    "\n  ",
    "id: ",
    "match: ",
    "null",
    "[]",
    "{}",
    "&a ",
    "*a",
    "<<: *a",
    "extends: ",
    "arms:",
    "remove: ",
    "type: ",
    "1e5",
    "'",
    '"',
    "\\",
    "\t",
    ": ",
    "!!x ",
    "---\n",
    "|\n",
    "? ",
    "\x00",
    "\x85",
    "\ufeff",
    "é漢😀",
]

VALID: dict[str, Any] = {
    "recipe": 1,
    "name": "x",
    "description": "text",
    "seeds": [0, 1],
    "baseline": "a",
    "study": {"workers": 2, "metric": "test/acc"},
    "model": {"type": "timm", "name": "resnet18", "args": {"a": [1, {"b": 2}], "c": None}},
    "data": {"type": "cifar10", "augment": ["flip", {"type": "crop", "padding": 2}]},
    "train": {
        "epochs": 3,
        "optimizer": {"type": "sgd", "lr": 0.1},
        "schedule": "cosine",
        "checkpoint": {"every": 2},
    },
    "unmatched": "keep",
    "init": [
        {"id": "head", "match": "head", "init": "zeros"},
        {"match": {"kind": "norm", "kernel_size": 3}, "init": {"type": "constant", "value": 1}},
    ],
    "arms": {
        "a": {},
        "b": {
            "extends": "a",
            "remove": ["head"],
            "init": [
                {"id": "f", "match": {"depth": [0, 0.5]}, "covariance": {"type": "closed_form"}, "scale": 0.5}
            ],
        },
        "c": {
            "extends": "b",
            "init": [{"id": "f", "covariance": {"width": {"start": 0.3}}, "freeze": {"params": True}}],
        },
        "d": {
            "init": [
                {
                    "id": "m",
                    "match": "a",
                    "covariance": {"type": "agop", "from": {"stage": "t", "seeds": [0]}},
                }
            ]
        },
    },
    "stages": {
        "s": {"seeds": 2, "model": {"args": {"a": 2}}},
        "t": {
            "extends": "s",
            "init": [
                {
                    "match": "a",
                    "covariance": {"type": "filters", "from": {"stage": "s"}, "layers": {"x": "y"}},
                }
            ],
        },
    },
}
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2.5,
    float("inf"),
    float("nan"),
    10**400,
    "",
    "x",
    "zeros",
    "a",
    "f",
    "head",
    "type",
    "*",
    "(",
    "yes",
    "010",
    "\ud800",
    "\0",
    [],
    {},
    [[]],
    [{}],
    {"type": "zeros"},
    {"type": None},
    {"stage": "t"},
    {"stage": "s", "seeds": [3]},
    {"from": {"stage": "t"}},
    "t",
    {"type": []},
    {"id": "f"},
    [None],
    {"": 1},
    {"type=sgd": 1},
    b"x",
    (1, 2),
    {1: 2},
    "../x",
    ".",
    1 + 2j,
]


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(below for key, item in items for below in paths(item, (*path, key)))]


def at(node: Any, path: tuple[Any, ...]) -> Any:
    """Return the value at a path."""
    for key in path:
        node = node[key]
    return node


def judge(source: Any, overrides: list[str]) -> None:
    """Load; what is read has a resolved form, what is not has a text that can be printed."""
    try:
        recipe = (
            loads(source, overrides=overrides)
            if isinstance(source, str)
            else load(source, overrides=overrides)
        )
    except RecipeError as error:
        assert str(error).encode()  # noqa: PT017
        assert len(error.issues) > 0  # noqa: PT017
    else:
        assert loads(resolved(recipe)) == recipe


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a text near those people write."""
    text = draw(st.sampled_from(SOURCES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 10)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[end:]
    return text


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid recipe with values replaced, removed, moved and added."""
    tree = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(paths(tree)))
        value = copy.deepcopy(
            draw(st.sampled_from(ODD) | st.sampled_from([at(tree, p) for p in paths(tree)]))
        )
        node = at(tree, where)
        if isinstance(node, dict) and draw(st.booleans()):
            node[
                draw(
                    st.sampled_from(
                        [
                            "x",
                            "type",
                            "init",
                            "extends",
                            "remove",
                            "id",
                            "scale",
                            "args",
                            "a",
                            "arms",
                            "stages",
                            "from",
                        ]
                    )
                )
            ] = value
        elif len(where) > 0 and draw(st.booleans()):
            at(tree, where[:-1])[where[-1]] = value
        elif len(where) > 0:
            del at(tree, where[:-1])[where[-1]]
    return tree


OVERRIDES = st.lists(
    st.builds(
        "{}={}".format,
        st.sampled_from(
            [
                "train.epochs",
                "arms.c.init.f.scale.gain",
                "init.head.match",
                "data.augment",
                "seeds",
                "arms.b",
                "stages.t",
                "stages.s.seeds",
                "arms.d.init.m.covariance.from.stage",
                "x.y",
            ]
        ),
        st.sampled_from(["5", "[1", "{a: b}", "zeros", "'", "null", "{type: sgd}", "[{id: f}]", "*a"]),
    ),
    max_size=2,
)


@given(texts(), OVERRIDES)
@settings(max_examples=3 * settings.default.max_examples)
def test_texts(text: str, overrides: list[str]) -> None:
    """Texts near a recipe are read or refused."""
    judge(text, overrides)


@given(st.text(max_size=80))
@settings(max_examples=2 * settings.default.max_examples)
def test_any_text(text: str) -> None:
    """Any text is read or refused."""
    judge(text, [])


@given(mutants(), OVERRIDES)
@settings(max_examples=3 * settings.default.max_examples)
def test_structures(tree: dict[str, Any], overrides: list[str]) -> None:
    """Recipes with wrong values, keys and forms are read or refused."""
    judge(tree, overrides)


@given(st.binary(max_size=60))
def test_any_bytes(tmp_path_factory: Any, content: bytes) -> None:
    """Any file is read or refused."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    try:
        load(path)
    except RecipeError as error:
        assert str(error)  # noqa: PT017
