"""`mimetic plan`: the table, JSON, other models, and what a user can get wrong."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

Call = Callable[..., Result]

RULE = "recipe: 1\ninit:\n  - {match: {kind: conv}, init: orthogonal}\n"


def test_table(tiny: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arm has a head line, the claimed parameters and how many keep their own."""
    monkeypatch.chdir(tiny.parent)
    result = call("plan", tiny.name)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.startswith("default: 0 of ") and " by 0 rules, seed 0, plan " in line for line in lines)
    assert any(line.startswith("frozen: 2 of ") and " by 1 rule, seed 0, plan " in line for line in lines)
    (first,) = [line.split() for line in lines if line.strip().startswith("blocks.0.spatial.weight ")]
    assert first[:3] == ["blocks.0.spatial.weight", "8×1×3×3", "depthwise_conv"]
    assert ", frozen" in " ".join(first)
    assert first[-2:] == ["filters", "tiny.yaml:11"]


def test_all_parameters(tiny: Path, call: Call) -> None:
    """`--all` has a row for each parameter, and leaves none unsaid."""
    result = call("plan", tiny, "--arm", "frozen", "--all")
    total = int(result.stdout.split(" of ")[1].split()[0])
    rows = [line for line in result.stdout.splitlines() if ".weight" in line or ".bias" in line]
    assert total <= len(rows)
    assert "keep the model's own" not in result.stdout


def test_all_sites(tmp_path: Path, call: Call) -> None:
    """`--all` and `--json` show each composite site with its slots and heads, claimed or not."""
    path = tmp_path / "rule.yaml"
    path.write_text("recipe: 1\nmodel: {type: vit, depth: 2}\ndata: cifar10\n", encoding="utf-8")
    rows = [line.split() for line in call("plan", path, "--all").stdout.splitlines() if " in " in line]
    sites = json.loads(call("plan", path, "--json").stdout)["main"]["sites"]

    attention = "blocks.1.attn attention 1 q, k, v in qkv.weight; out in proj.weight 3 heads of 64"
    assert attention.split() in rows
    assert [row[:2] for row in rows] == [[site["site"], site["kind"]] for site in sites]
    assert sites[1]["slots"]["k"] == ["qkv.weight", 192, 384]
    assert " in " not in call("plan", path).stdout


def test_json(tiny: Path, call: Call) -> None:
    """`--json` is JSON alone, of every arm, and the same for the same seed."""
    plans = json.loads(call("plan", tiny, "--json", "--seed", "3").stdout)
    assert list(plans) == ["default", "frozen"]
    assert plans == json.loads(call("plan", tiny, "--json", "--seed", "3").stdout)
    assert plans != json.loads(call("plan", tiny, "--json", "--seed", "4").stdout)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:mobilenetv3_small_050", "vgg11"])
def test_other_models(name: str, tmp_path: Path, call: Call) -> None:
    """A recipe of `init` alone is planned against any model; no weight is made."""
    path = tmp_path / "rule.yaml"
    path.write_text(RULE, encoding="utf-8")
    result = call("plan", path, "--model", name)
    assert result.exit_code == 0
    assert "orthogonal" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "nope"], "recipe `tiny` has no arm `nope` (arms: `default`, `frozen`)"),
        (["--model", "torchvision:resnet19"], "did you mean `resnet18`"),
        (["--model", "resnet18"], "--model: there is no model type `resnet18`"),
        (["--model", "timm:nope"], "timm has no classification model `nope`"),
        (["--set", "arms.frozen.init.filters.match.layer=nope"], "tiny.yaml:11:9"),
        (["--set", "arms.frozen.init.filters.expect=7"], "expect"),
    ],
)
def test_wrong_requests(words: list[str], said: str, tiny: Path, call: Call) -> None:
    """Each says what is wrong and exits with 2."""
    result = call("plan", tiny, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_model_named_here_is_no_mistake_of_the_arms(tiny: Path, call: Call) -> None:
    """What is wrong with it is said once, without a place in the recipe."""
    result = call("plan", tiny, "--model", "timm:nope")
    assert result.exit_code == 2
    assert result.stderr.startswith("timm has no classification model `nope`")
    assert result.stderr.count("nope") == 1


def test_a_recipe_without_a_model_asks_for_one(tmp_path: Path, call: Call) -> None:
    """The repair is an option to copy, and the arm's place is named."""
    path = tmp_path / "rule.yaml"
    path.write_text(RULE, encoding="utf-8")
    result = call("plan", path)
    assert result.exit_code == 2
    assert "--model timm:convmixer_768_32" in result.stderr


def test_code_runs_only_when_allowed(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`type: python` is refused with its place, and planned with `--allow-code`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model.py").write_text(
        "from torch import nn\n\n"
        "def build(in_channels, num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Flatten(), nn.Linear(144, num_classes))\n",
        encoding="utf-8",
    )
    path = tmp_path / "code.yaml"
    path.write_text(
        "recipe: 1\nmodel: {type: python, call: 'my_model:build'}\ndata: digits\n"
        "init: [{match: {kind: conv}, init: orthogonal}]\n",
        encoding="utf-8",
    )
    refused = call("plan", path)
    assert refused.exit_code == 2
    assert f"{path}:2:8: " in refused.stderr
    assert "--allow-code" in refused.stderr
    allowed = call("plan", path, "--allow-code")
    assert allowed.exit_code == 0, allowed.output
    assert "4×1×3×3" in allowed.stdout


def test_surgery_is_shown(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replaced layer has a row: what it was, what it becomes, by which rewrite, and where."""
    monkeypatch.chdir(tmp_path)
    path = Path("rewritten.yaml")
    rewrite = "{id: lc, match: {kind: conv}, type: linear_combination, expansion: 3}"
    model = "model: {type: cifar_resnet, depth: 8, width: 4}\ndata: digits\n"
    path.write_text(f"recipe: 1\n{model}surgery:\n  - {rewrite}\n", encoding="utf-8")
    lines = call("plan", path).stdout.splitlines()
    (row,) = [" ".join(line.split()) for line in lines if line.strip().startswith("layer1.0.conv{1,2} ")]

    assert row.startswith("layer1.0.conv{1,2} ×2 conv 3×3, 4→4 12 frozen filters 3×3, 1×1 to 4 lc ")
    assert row.endswith("rewritten.yaml:5")
    assert any("layer1.0.conv{1,2}.filters.weight ×2" in line and "frozen" in line for line in lines)


LEARNERS = """recipe: 1
data: {type: digits, val_size: 100}
arms:
  cntk: {learner: {type: cntk, depth: 2}}
  rfm: {learner: {type: rfm, images: 50}}
"""


def test_learners(tmp_path: Path, call: Call) -> None:
    """Arms without a network say what they will do; where parameters are asked for, that there are none."""
    path = tmp_path / "learners.yaml"
    path.write_text(LEARNERS, encoding="utf-8")
    lines = call("plan", path).stdout.splitlines()
    told = json.loads(call("plan", path, "--arm", "rfm", "--json").stdout)

    assert lines[:2] == [
        "arm cntk: cntk",
        "  CNTK of 2 convolutions over patches of 1×3×3, positions 6×6 → 4×4",
    ]
    assert told["arm rfm: rfm"]["learner"][0] == "Laplace kernel of length 10 over 64 pixels coordinates"
    for words in (("diff", f"{path}#cntk", f"{path}#rfm"), ("explain", path, "x", "--arm", "rfm")):
        refused = call(*words)
        assert refused.exit_code == 2
        assert "learns without a network" in refused.stderr


WRONG = """recipe: 1
model: {type: convmixer, dim: 8, depth: 2, kernel_size: 3}
data: digits
train: {epochs: 1}
arms:
  rules: {init: [{match: nowhere, init: zeros}]}
  learner: {learner: {type: rfm, select: validation}, model: null, train: null}
  harvest: {init: [{match: {kind: depthwise_conv}, covariance: {type: filters, from: {stage: first}}}]}
stages:
  first: {init: [{match: {kind: attention}, init: orthogonal}]}
"""


def test_mistakes_of_rules_learners_and_stages_are_told_at_once(tmp_path: Path, call: Call) -> None:
    """By `plan` as by `run`; an arm that is named is looked at alone."""
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG, encoding="utf-8")
    planned, ran = call("plan", path), call("run", path, "--offline", "--root", tmp_path / "runs")

    assert (planned.exit_code, ran.exit_code) == (2, 2)
    assert planned.stderr == ran.stderr
    assert planned.stderr.endswith("3 errors\n")
    assert "stages.first.init.rule-1: " in planned.stderr
    for line in (6, 7, 10):
        assert f"{path}:{line}:" in planned.stderr
    assert f"{path}:10:" not in call("plan", path, "--arm", "rules").stderr


FROM_A_RUN = """recipe: 1
model: {type: convmixer, dim: 8, depth: 2, kernel_size: 3, patch_size: 2}
data: digits
init: [{id: f, match: {kind: depthwise_conv}, covariance: {type: filters, from: {run: RUN}}}]
"""


@pytest.mark.parametrize("verb", ["plan", "explain", "diff"])
def test_runs_are_looked_up_below_the_given_root(verb: str, tmp_path: Path, call: Call) -> None:
    """`from: {run: …}` means the store below `--root`, as `mimetic run` would look there."""
    path = tmp_path / "from-run.yaml"
    path.write_text(FROM_A_RUN.replace("RUN", "a" * 32), encoding="utf-8")
    others = {"plan": (), "explain": ("x",), "diff": (path,)}[verb]
    result = call(verb, path, *others, "--root", tmp_path / "elsewhere")

    assert result.exit_code == 2
    assert str(tmp_path / "elsewhere") in result.stderr


def test_repeated_blocks_collapse(tmp_path: Path, call: Call) -> None:
    """A row stands for the parameters that differ in a number of their names alone; `--all` has each."""
    path = tmp_path / "attention.yaml"
    rule = "init: [{match: {kind: linear}, init: orthogonal}]"
    path.write_text(f"recipe: 1\nmodel: {{type: vit, depth: 3}}\ndata: cifar10\n{rule}\n", encoding="utf-8")
    few = [line.split()[:2] for line in call("plan", path).stdout.splitlines() if " orthogonal " in line]
    every = [line.split()[0] for line in call("plan", path, "--all").stdout.splitlines()]

    assert few[:2] == [["blocks.{0..2}.attn.qkv.weight", "×3"], ["blocks.{0..2}.attn.proj.weight", "×3"]]
    assert {f"blocks.{block}.attn.qkv.weight" for block in range(3)} <= set(every)


def test_a_model_in_place_of_a_recipe(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mimetic plan timm:vit_tiny…` shows every parameter, whole, on a terminal of 80×24."""
    screen = Console(file=StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    monkeypatch.setattr("mimetic.cli.plan.console", lambda: screen)
    result = call("plan", "timm:vit_tiny_patch16_224")
    lines = screen.file.getvalue().splitlines()
    assert result.exit_code == 0, result.output
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert "blocks.{0..11}.attn.qkv.weight ×12   576×192      linear  model's own" in lines
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "head.weight"} <= {
        x.split()[0] for x in lines
    }
    assert sum(int(line.partition(" ×")[2][:2] or 1) for line in lines[3:]) == 152
