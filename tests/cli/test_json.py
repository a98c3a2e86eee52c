"""`--json` of every verb that has it: one value, the documented keys, nothing that is no JSON."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import Result

from mimetic.cli import app
from mimetic.cli.console import print_json
from mimetic.covariance import store
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.graph.site import Geometry
from mimetic.models.build import build
from mimetic.recipe.load import load
from mimetic.study import study, sync
from mimetic.study.comparing.comparison import of_studies
from mimetic.study.conclusion import StudyResult

Call = Callable[..., Result]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")


def documented(verb: str) -> set[str]:
    """Return the names in a verb's row of the table in docs/json.md."""
    (row,) = re.findall(rf"(?m)^\| `{verb}` \| (.*) \|$", DOCUMENT)
    return set(re.findall(r"`(\w+)`", row))


def names(value: object) -> set[str]:
    """Return the keys of a JSON object, or of the first object in a list."""
    return names(value[0]) if isinstance(value, list) else set(value)


def test_every_verb_with_the_option_is_documented() -> None:
    """And no other."""
    verbs = {
        command.callback.__name__
        for command in app.registered_commands
        if {"as_json", "json"} & set(signature(command.callback).parameters)
    }
    assert verbs == set(re.findall(r"(?m)^\| `(\w+)` \|", DOCUMENT))


def test_keys(tiny: Path, quickstart: Path, tmp_path: Path, call: Call) -> None:
    """The outermost keys are the documented ones, of lists those of an entry."""
    layer = Harvested("stem", "conv", 0.0, Geometry(1, 4, (3, 3), (1, 1)), closed_form((3, 3), 0.4))
    store.save_harvest(tmp_path / "a.safetensors", Harvest("net", "nfm", (layer,), spatial=True))
    broken = tmp_path / "broken.yaml"
    broken.write_text("recipe: 1\nseeds: -1\narms: {a: {}}\n", encoding="utf-8")
    told = {
        "plan": ("plan", tiny),
        "diff": ("diff", f"{tiny}#default", f"{tiny}#frozen"),
        "explain": ("explain", tiny, "blocks.0.spatial.weight", "--arm", "frozen"),
        "validate": ("validate", tiny, broken),
        "ls": ("ls", "--root", quickstart),
        "compare": ("compare", "quickstart", "--root", quickstart),
        "show": ("show", tmp_path / "a.safetensors"),
    }
    values = {verb: json.loads(call(*words, "--json").stdout) for verb, words in told.items()}

    assert {"hash", "seed", "order", "entries", "sites", "rewrites"} <= names(values["plan"]["frozen"])
    assert names(values["diff"]) | names(values["diff"]["differences"]) == documented("diff")
    assert names(values["explain"]) | names(values["explain"][0]["verdicts"]) == documented("explain")
    (fine, wrong) = values["validate"].values()
    assert names(fine) | names(wrong["errors"]) == documented("validate")
    assert (fine["arms"], wrong["errors"][0]["code"], wrong["errors"][0]["line"]) == (
        ["default", "frozen"],
        "MIM-R011",
        2,
    )
    about = values["ls"]["types"]["optimizer"]["adamw"]
    found = names(values["ls"]) | names(values["ls"]["studies"]) | names(about) | names(about["keys"]["lr"])
    assert found == documented("ls")
    assert names(values["compare"]) == documented("compare")
    assert names(values["show"]) | names(values["show"]["layers"]) == documented("show")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_what_is_printed_is_json(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the text, the numbers and the encoding of the output."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace"))
    text = "".join(map(chr, (*range(0x500), 0x202E, 0xD800, 0x1F642, 0xE0001)))
    print_json({"text": text, "×": [math.nan, math.inf, 0.1], 3: Path("a/b"), "pair": (1, None)})
    sys.stdout.flush()

    printed = raw.getvalue().decode(encoding)
    assert json.loads(printed) == {"text": text, "×": [None, None, 0.1], "3": "a/b", "pair": [1, None]}
    assert all(c == "\n" or c.isprintable() for c in printed)
    assert ("×" in printed) == (encoding == "utf-8")


def test_keys_of_harvest_and_similarity(tiny: Path, tmp_path: Path, call: Call) -> None:
    """Of weights as they are initialized: the keys need no training."""
    model = build(load(tiny).arms["default"].model, in_channels=1, num_classes=10, seed=0)
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.safetensors"
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, weights)

    words = ("--tensors", weights, "--layers", r".*\.spatial", "-o", out)
    found = json.loads(call("harvest", *words, "--json").stdout)
    assert names(found) | names(found["layers"]) == documented("show") | documented("harvest")
    words = (weights, weights, "--recipe", tiny, "--arm", "default", "--weights-only")
    found = json.loads(call("similarity", *words, "--json").stdout)
    assert names(found) | names(found["layers"]) == documented("similarity")


def test_keys_of_run_sync_and_ansatz(
    tiny: Path, quickstart: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` prints what its study returns, here one that is complete; `sync` a list of it."""
    (folder,) = quickstart.glob("studies/quickstart/*")
    done = StudyResult(folder, of_studies([folder])[0], {}, None, interrupted=False)
    monkeypatch.setattr(study, "run", lambda *_, **__: done)
    monkeypatch.setattr(sync, "sync", lambda *_, **__: done)
    ran = json.loads(call("run", tiny, "--root", quickstart, "--json").stdout)
    assert names(ran) == documented("run") - {"compare"}
    assert json.loads(call("sync", "--root", quickstart, "--json").stdout) == [ran]
    assert names(ran["comparison"]) == documented("compare")

    model = build(load(tiny).arms["default"].model, in_channels=1, num_classes=10, seed=0)
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    words = (
        "--recipe",
        tiny,
        "--arm",
        "default",
        "--checkpoint",
        tmp_path / "w.safetensors",
        "--images",
        "8",
    )
    found = json.loads(call("ansatz", *words, "--csv", tmp_path / "out.csv", "--json").stdout)
    assert names(found) == documented("ansatz")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        assert names(found["layers"]) == set(next(csv.reader(file)))
