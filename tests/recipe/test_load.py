"""Loading: composition over files and arms, places, sources."""

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mimetic.config.errors import FilePosition, RecipeError
from mimetic.errors import UserError
from mimetic.recipe.dump import resolved
from mimetic.recipe.load import load, loads
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.shipped import shipped

TEXT = r"""recipe: 1
model: {type: convmixer, dim: 64, depth: 4}
data: digits
train: {epochs: 3, optimizer: {type: sgd, lr: 0.1}}
seeds: 2
baseline: default
init:
  - {id: head, match: {kind: linear}, init: zeros}
arms:
  default:
  closed-form:
    init:
      - id: filters
        match: {layer: 'blocks\.\d+\.spatial', kind: depthwise_conv}
        covariance: {type: closed_form, width: 0.2}
        expect: 4
  frozen:
    extends: closed-form
    train: {epochs: 5}
    init:
      - {id: filters, freeze: true}
  bare:
    extends: frozen
    remove: [head]
    model: {depth: 8}
"""


@pytest.fixture
def recipe() -> Recipe:
    """Return the recipe above."""
    return loads(TEXT, file="r.yaml")


def write(folder: Path, **files: str) -> Path:
    """Write files of a recipe and return the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def ids(recipe: Recipe, arm: str) -> list[str]:
    """Return the ids of an arm's rules."""
    return [rule.id for rule in recipe.arms[arm].init]


def test_arms_are_complete(recipe: Recipe) -> None:
    """What stands at the top holds for every arm, laid under the arm's own."""
    assert list(recipe.arms) == ["default", "closed-form", "frozen", "bare"]
    assert [arm.train.epochs for arm in recipe.arms.values() if arm.train is not None] == [3, 3, 5, 5]
    assert {arm.data.type_name() for arm in recipe.arms.values() if arm.data is not None} == {"digits"}
    assert [ids(recipe, arm) for arm in recipe.arms] == [
        ["head"],
        ["filters", "head"],
        ["filters", "head"],
        ["filters"],
    ]
    assert [bool(rule.freeze) for rule in recipe.arms["bare"].init] == [True]
    assert recipe.arms["bare"].model.model_dump()["depth"] == 8  # type: ignore[union-attr]
    assert recipe.arms["bare"].model.model_dump()["dim"] == 64  # type: ignore[union-attr]
    assert recipe.seeds == (0, 1)


def test_where(recipe: Recipe) -> None:
    """Every written value is found at its place, inherited ones at the place they come from."""
    assert recipe.where("arms", "closed-form", "init", 0) == FilePosition("r.yaml", 13, 9)
    assert recipe.where("arms", "frozen", "init", 0) == FilePosition("r.yaml", 13, 9)
    assert recipe.where("arms", "frozen", "init", 0, "freeze") == FilePosition("r.yaml", 21, 31)
    assert recipe.where("arms", "frozen", "init", "filters", "expect") == FilePosition("r.yaml", 16, 17)
    assert recipe.where("arms", "default", "train", "epochs") == FilePosition("r.yaml", 4, 17)
    assert recipe.where("arms", "frozen", "train", "epochs") == FilePosition("r.yaml", 19, 21)
    assert recipe.where("arms", "frozen") == FilePosition("r.yaml", 17, 3)
    assert recipe.where("seeds") == FilePosition("r.yaml", 5, 8)


@pytest.mark.parametrize(
    "path", [("arms", "none"), ("study",), ("arms", "default", "init", 7), ("seeds", 0), ("name", "x"), (5,)]
)
def test_where_nothing_was_written(recipe: Recipe, path: tuple[Any, ...]) -> None:
    """A default, and what does not exist, has no place."""
    assert recipe.where(*path) is None


def test_address(recipe: Recipe) -> None:
    """The plan asks for places below one arm."""
    where = recipe.address("frozen").mark
    assert where("init", 0) == FilePosition("r.yaml", 13, 9)
    assert where("init", 0, "match", "kind") == recipe.where(
        "arms", "closed-form", "init", 0, "match", "kind"
    )
    assert where("unmatched") is None
    assert where("init") == recipe.where("arms", "frozen", "init")


def test_sources(recipe: Recipe) -> None:
    """The text is kept as it was written."""
    assert recipe.sources == {"r.yaml": TEXT}


def test_origin_does_not_count(recipe: Recipe) -> None:
    """Recipes that say the same are equal, wherever they were written; pickles keep the places."""
    assert recipe == loads("# a comment\n" + TEXT, file="r.yaml")
    copy = pickle.loads(pickle.dumps(recipe))  # noqa: S301
    assert copy == recipe
    assert copy.where("seeds") == FilePosition("r.yaml", 5, 8)


def test_loaded_is_returned(recipe: Recipe) -> None:
    """A loaded recipe passes through, and cannot be overridden."""
    assert load(recipe) is recipe
    with pytest.raises(UserError, match="cannot be overridden"):
        load(recipe, overrides=["seeds=1"])


def test_mapping() -> None:
    """A mapping of the same form needs no version, has no places, and tells paths all the same."""
    recipe = load({"init": [{"match": "head", "init": "zeros"}], "seeds": (0, 1)})
    assert (recipe.name, list(recipe.arms), ids(recipe, "main")) == ("recipe", ["main"], ["rule-1"])
    assert recipe.where("arms", "main", "init", 0) is None
    assert recipe.sources == {}
    with pytest.raises(RecipeError) as caught:
        load({"init": [{"id": "head", "match": "head", "init": "zero"}], "train": {"epochs": -1}})
    assert str(caught.value) == (
        "init.head.init: unknown initializer type `zero` [MIM-R003]\n    hint: did you mean `zeros`?\n\n"
        "train.epochs: must be at least 0, found -1 [MIM-R006]\n\n2 errors"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: 2}, "keys must be text, found 1"),
        ({"name": "\ud800"}, "not valid Unicode"),
        ({"data": {"type": "image_folder", "path": Path("x")}}, "expected text, found a Python"),
        (
            {"model": {"type": "timm", "name": "x", "args": {"a": [object()]}}},
            r"model.args.a\[0\]: arguments are text",
        ),
        ({"recipe": 2}, "version 1"),
    ],
)
def test_mappings_of_odd_values(value: dict[Any, Any], message: str) -> None:
    """Python values that YAML cannot hold are refused by name."""
    with pytest.raises(RecipeError, match=message):
        load(value)


def test_mapping_in_itself() -> None:
    """A mapping that holds itself ends in an error, not in a loop."""
    odd: dict[str, Any] = {}
    odd["model"] = odd
    with pytest.raises(RecipeError, match="50 deep"):
        load(odd)


def test_a_text_is_not_a_path() -> None:
    """Who passes a text for a path is told what to call."""
    with pytest.raises(UserError, match="loads"):
        load(TEXT)


@pytest.mark.parametrize(
    ("file", "name"), [("a b.yaml", "a-b"), ("..x.yaml", "x"), ("é.yaml", "recipe"), ("v1.2.yml", "v1.2")]
)
def test_name_of_the_file(file: str, name: str) -> None:
    """A recipe without a name is called by its file."""
    assert loads("recipe: 1\n", file=file).name == name


def test_extends_files(tmp_path: Path) -> None:
    """A file is laid over those it extends, later ones over earlier ones; its name is its own."""
    path = write(
        tmp_path,
        top="recipe: 1\nextends: [one.yaml, two.yaml]\ntrain: {epochs: 9}\n"
        "arms: {x: {init: [{id: r, freeze: true}]}}\n",
        one="recipe: 1\nname: one\ndescription: one\nseeds: 3\n"
        "train: {epochs: 1, batch_size: 11, mixup: 0.1}\n"
        "arms: {x: {init: [{id: r, match: head, init: zeros}]}, y: }\n",
        two="recipe: 1\ntrain: {epochs: 2, batch_size: 22}\ninit: [{match: {kind: norm}, init: ones}]\n",
    )
    recipe = load(path)
    train = recipe.arms["x"].train
    assert train is not None
    assert (train.epochs, train.batch_size, train.mixup) == (9, 22, 0.1)
    assert (recipe.name, recipe.description, len(recipe.seeds)) == ("top", None, 3)
    assert (ids(recipe, "x"), ids(recipe, "y")) == (["r", "rule-1"], ["rule-1"])
    assert [Path(name).stem for name in recipe.sources] == ["top", "one", "two"]
    assert recipe.where("arms", "x", "train", "mixup") == FilePosition(str(tmp_path / "one.yaml"), 5, 43)


def test_a_file_is_a_layer_once(tmp_path: Path) -> None:
    """Two files that extend the same one do not undo each other."""
    path = write(
        tmp_path,
        top="recipe: 1\nextends: [b.yaml, c.yaml]\n",
        b="recipe: 1\nextends: a.yaml\ntrain: {epochs: 7}\n",
        c="recipe: 1\nextends: a.yaml\n",
        a="recipe: 1\ntrain: {epochs: 1}\n",
    )
    train = load(path).arms["main"].train
    assert train is not None
    assert train.epochs == 7


def test_files_are_bounded(tmp_path: Path) -> None:
    """A chain of files ends at the limit."""
    for number in range(25):
        (tmp_path / f"{number}.yaml").write_text(f"recipe: 1\nextends: {number + 1}.yaml\n")
    with pytest.raises(RecipeError, match="19 files at most"):
        load(tmp_path / "0.yaml")


def test_arms_are_bounded() -> None:
    """A long chain of arms ends in an error, not in a RecursionError."""
    arms = {f"a{n}": {"extends": f"a{n + 1}"} for n in range(2000)} | {"a2000": {}}
    with pytest.raises(RecipeError, match="more than 50 deep"):
        load({"arms": arms})


def test_removal_over_layers(tmp_path: Path) -> None:
    """An arm of a file removes what the same arm of the other file, and the top, gave it."""
    path = write(
        tmp_path,
        top="recipe: 1\nextends: base.yaml\narms: {x: {remove: [own, shared]}}\n",
        base="recipe: 1\ninit: [{id: shared, match: a, init: zeros}]\n"
        "arms: {x: {init: [{id: own, match: b, init: zeros}, {id: left, match: c, init: zeros}]}}\n",
    )
    assert ids(load(path), "x") == ["left"]


def test_shorthands() -> None:
    """Text for a type, a layer's name, numbers for a width, a scale and a size, a switch for freeze."""
    (rule,) = (
        load(
            {
                "init": [
                    {
                        "match": {"layer": "a", "kernel_size": 3},
                        "covariance": {"type": "closed_form", "width": 0.3},
                        "scale": 2,
                        "freeze": True,
                    }
                ]
            }
        )
        .arms["main"]
        .init
    )
    assert (rule.match.kernel_size, rule.freeze.params) == (type(rule.match.kernel_size)(min=3, max=3), True)
    assert rule.covariance.model_dump()["width"] == {"start": 0.3, "linear": 0.0, "quadratic": 0.0}  # type: ignore[union-attr]
    assert rule.scale.model_dump() == {"type": "gain", "gain": 2.0}
    (short,) = load({"init": [{"match": "a", "init": "zeros"}]}).arms["main"].init
    assert (short.match.layer, short.init) == ("a", type(short.init)())


def test_shared_part_may_be_incomplete() -> None:
    """What the top leaves open, every arm may fill in."""
    recipe = load(
        {"model": {"dim": 8}, "arms": {"a": {"model": {"type": "convmixer"}}, "b": {"model": "convmixer"}}}
    )
    assert [arm.model.model_dump()["dim"] for arm in recipe.arms.values()] == [8, 8]  # type: ignore[union-attr]


@pytest.mark.parametrize("path", shipped().values(), ids=shipped().keys())
def test_shipped(path: Path) -> None:
    """Every shipped recipe loads, and its resolved form is the same recipe."""
    recipe = load(path)
    assert loads(resolved(recipe)) == recipe


DOCUMENTED = Path(__file__).parents[2] / "docs" / "language.md"


def test_documented() -> None:
    """Every recipe in the description of the language loads."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    recipes = [loads(block) for block in blocks if "recipe: 1" in block]
    assert [len(recipe.stages) for recipe in recipes] == [0, 0, 0, 0, 1, 1, 0, 1, 1]


def test_reads_without_torch() -> None:
    """Loading a recipe imports neither torch nor numpy."""
    code = (
        "import sys; from mimetic.recipe.load import loads\n"
        "from mimetic.recipe.json_schema import json_schema; "
        "loads('recipe: 1\\n'); json_schema();"
        "print([m for m in ('torch', 'numpy', 'mlflow', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
