"""Types by name, plugins, and what may stand where."""

import subprocess
import sys
from pathlib import Path

import pytest

from mimetic.config.registry import families, implementation, registered
from mimetic.config.suggest import did_you_mean, nearest
from mimetic.config.text.tree import wrapped
from mimetic.errors import UserError
from mimetic.graph.config import Match
from mimetic.initializers.config import Init
from mimetic.recipe.compose.group import ARM, RECIPE
from mimetic.recipe.rule import Rule
from mimetic.recipe.validate.hints import suggest_section, unknown_key_hint
from mimetic.recipe.validate.schema_node import SchemaNode, node_of
from tests.forks import in_forks


def test_families() -> None:
    """Every place of the language where a type stands has types."""
    wanted = {"init", "covariance", "scale", "model", "surgery", "data", "augment", "optimizer", "schedule"}
    wanted |= {"learner", "executor", "fit"}
    assert set(families()) == wanted
    assert all(registered(family) for family in families())


def test_names_are_not_taken_twice() -> None:
    """No plugin replaces a type silently."""
    with pytest.raises(ValueError, match="registered twice"):

        class Other(Init, type="constant"):
            """Another constant."""


PLUGIN = '''
from typing import Annotated, Literal
from mimetic.config.base import FromList
from mimetic.initializers.config import Init

class Ramp(Init, type="ramp"):
    """A ramp."""
    slope: float = 1.0
    ends: Literal["flat", "open"] | Annotated[tuple[int, ...], FromList] = "flat"
'''


def install(folder: Path, code: str) -> None:
    """Lay a package with an entry point into a folder, as an installer would."""
    (folder / "ramp_plugin.py").write_text(code)
    info = folder / "ramp_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ramp-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mimetic.components]\nramp = ramp_plugin\n")


def run(folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with a folder of plugins."""
    script = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_plugin(tmp_path: Path) -> None:
    """A type of a plugin is read, refused, completed and suggested like one of ours."""
    install(tmp_path, PLUGIN)
    done = run(
        tmp_path,
        "from mimetic import load, RecipeError\nfrom mimetic.recipe.json_schema import json_schema\n"
        "recipe = load({'init': [{'match': 'a', 'init': {'type': 'ramp', 'slope': 2}}]})\n"
        "print(recipe.arms['main'].init[0].init.slope)\n"
        "print('Ramp' in json_schema()['$defs'])\n"
        "try: load({'init': [{'match': 'a', 'init': 'rampp'}]})\n"
        "except RecipeError as e: print(e)\n",
    )
    assert done.stdout.splitlines() == [
        "2.0",
        "True",
        "init.rule-1.init: unknown initializer type `rampp` [MIM-R003]",
        "    hint: did you mean `ramp`?",
    ], done.stderr


FORMS = {
    "'opn'": (
        "expected one of `flat`, `open` or a list, found the text 'opn' [MIM-R004]\n"
        "    hint: did you mean `open`?"
    ),
    "5": "expected one of `flat`, `open` or a list, found 5 [MIM-R004]\n    hint: write `[5]`",
    "[1, 'x']": "expected a whole number, found the text 'x' [MIM-R004]",
    "{'a': 1}": "expected one of `flat`, `open` or a list, found a map [MIM-R004]",
}


def test_several_forms(tmp_path: Path) -> None:
    """Where a value may have several forms, one message tells which, or what is amiss in one."""
    install(tmp_path, PLUGIN)
    done = run(
        tmp_path,
        "from mimetic import load, RecipeError\n"
        f"for ends in [{', '.join(FORMS)}]:\n"
        "    try: load({'init': [{'match': 'a', 'init': {'type': 'ramp', 'ends': ends}}]})\n"
        "    except RecipeError as e: print(e)\n",
    )
    places = ["ends", "ends", "ends[1]", "ends"]
    expected = [
        f"init.rule-1.init.{at}: {message}\n" for at, message in zip(places, FORMS.values(), strict=True)
    ]
    assert done.stdout == "".join(expected), done.stderr


PLUGGED = """
from mimetic.data.config import Augmentation
from mimetic.models.config import Model
from mimetic.train.config import Optimizer

class Plugged(Model, type="plugged"): pass
class Lion(Optimizer, type="lion"): pass
class Shear(Augmentation, type="shear"): pass
"""


def test_plugins_add_to_sections_defined_before_them(tmp_path: Path) -> None:
    """A type is read wherever its family stands, also below sections of ours that come first."""
    install(tmp_path, PLUGGED)
    measured = {"type": "nfm", "from": {"checkpoint": "a.pt", "model": "plugged"}}
    sources = [
        {"model": "plugged"},
        {"train": {"optimizer": {"type": "lion", "lr": 1.0}}},
        {"data": {"type": "digits", "augment": ["shear"]}},
        {"init": [{"match": "a", "covariance": measured}]},
    ]
    done = run(
        tmp_path,
        "from mimetic.recipe.load import load, loads\nfrom mimetic.recipe.dump import resolved\n"
        f"for x in map(load, {sources!r}): print(loads(resolved(x)) == x)",
    )
    assert done.stdout == "True\n" * 4, done.stderr


BROKEN = {
    "missing-import": "import nothing_of_that_name",
    "wrong-code": "1 / 0",
    "exit": "raise SystemExit",
    "exit-as-if-well": "import sys; sys.exit(0)",
    "taken-name": "from mimetic.initializers.config import Init\nclass Zeros(Init, type='zeros'): ...",
}


@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN)
def test_broken_plugin(tmp_path: Path, code: str) -> None:
    """A plug-in that cannot be imported is one error that names it."""
    install(tmp_path, code)
    done = run(
        tmp_path,
        "import mimetic\ntry: mimetic.load({})\n"
        "except mimetic.UserError as e: print(e.code, 'the plug-in `ramp` (ramp_plugin)' in str(e))",
    )
    assert done.stdout == "MIM-C051 True\n", done.stderr


@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(0)", "raise OSError"])
def test_an_implementation_that_cannot_be_imported(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its module raises is one error that names the component, its function and the reason."""
    (tmp_path / "broken_functions.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    section = Init.model_construct()
    monkeypatch.setattr(Init, "functions", {"impl": "broken_functions:draw"})
    monkeypatch.setattr(Init, "type_name", staticmethod(lambda: "broken"))

    with pytest.raises(
        UserError, match=r"`broken`: `broken_functions:draw` cannot be imported: \w+"
    ) as refused:
        implementation(section)
    assert refused.value.code == "MIM-C053"


INITIALIZER = """
from mimetic.initializers.univariate import constant
from mimetic.initializers.config import Init

class Ramp(Init, type="ramp", impl="ramp_plugin:ramp"):
    value: float = 3.0

def ramp(spec, site, context):
    return constant(spec, site, context)
"""
RAMPED = """
from torch import nn
model = nn.Sequential(nn.Linear(2, 2))
mimetic.initialize(model, {'init': [{'match': '0', 'param': 'weight', 'init': 'ramp'}]})
print(model[0].weight.unique().tolist())
""".replace("'match': '0', 'param': 'weight'", "'match': {'layer': '0', 'param': 'weight'}")


ORDERS = (
    "import mimetic",
    "import mimetic.initializers.univariate, mimetic",
    "import ramp_plugin, mimetic",
    "import mimetic.recipe.load, ramp_plugin, mimetic",
    "import mimetic; mimetic.load({}); import ramp_plugin",
)


@pytest.mark.slow
def test_plugins_load_in_any_order(tmp_path: Path) -> None:
    """A plug-in that imports initializers itself works whatever was imported before it."""
    install(tmp_path, INITIALIZER)
    done = run(tmp_path, in_forks([f"{first}\n{RAMPED}" for first in ORDERS]))
    assert done.stdout == "[3.0]\n" * len(ORDERS), done.stderr


def test_components_defined_after_the_first_load() -> None:
    """A notebook may define a component, change it, and use it at once."""
    code = """
import mimetic
from mimetic.initializers.config import Init
source = {'init': [{'match': 'a', 'init': {'type': 'late', 'value': 2.0}}]}
mimetic.load({'init': [{'match': 'a', 'init': 'zeros'}]})
class Late(Init, type='late'):
    value: float = 1.0
print(mimetic.load(source).arms['main'].init[0].init.value)
class Late(Init, type='late'):
    value: float = 1.0
    other: float = 5.0
print(mimetic.load(source).arms['main'].init[0].init.other)
"""
    done = run(Path(), code)
    assert done.stdout == "2.0\n5.0\n", done.stderr


def test_places() -> None:
    """What may stand where is read from the sections."""
    assert ARM.below("model") == SchemaNode(family="model")
    assert ARM.below("init").below(0) == SchemaNode(section=Rule)
    assert RECIPE.below("arms").below("any") == ARM
    match = ARM.below("init").below(0).below("match")
    assert (match.section, match.shorthand) == (Match, "layer")
    assert match.below("layer").is_text
    assert match.below("class").is_text
    assert match.below("kind").choices[0] == "conv"
    assert match.below("depth").length == 2
    sgd = ARM.below("train").below("optimizer").chosen(wrapped({"type": "sgd"}))
    assert tuple(sgd.fields()) == ("type", "lr", "weight_decay", "decay", "momentum", "nesterov")
    assert ARM.below("model").chosen("timm").below("args").below("x") == SchemaNode()
    assert node_of(int | None) == SchemaNode()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lr", "`lr` belongs under `train.optimizer`"),
        ("augment", "`augment` belongs under `data`"),
        ("kind", "`kind` belongs under `match` of a rule or under `measure.ansatz.layers`"),
        ("freeze", "`freeze` belongs in a rule"),
        ("expansion", "`expansion` belongs in a rewrite"),
        ("baseline", "`baseline` belongs at the top of the recipe"),
        ("type", None),
        ("xyzzy", None),
    ],
)
def test_home(key: str, hint: str | None) -> None:
    """A key in the wrong section is sent to the right one."""
    assert hint == suggest_section(key)


def test_unknown_key_prefers_its_neighbourhood() -> None:
    """Of several homes the one within the same section is named."""
    rule = ARM.below("init").below(0)
    assert (
        unknown_key_hint("kernel_size", rule, ("init", "x"))
        == "`kernel_size` belongs under `match` of a rule"
    )
    assert unknown_key_hint("expct", rule, ("init", "x")) == "did you mean `expect`?"


def test_suggestions() -> None:
    """Near names are found whatever the case or the dash; far ones are not."""
    assert nearest("Closed-Form", ["identity", "closed_form"]) == "closed_form"
    assert did_you_mean("xyzzy", ["identity", "closed_form"]) is None
    assert did_you_mean("anything", []) is None
