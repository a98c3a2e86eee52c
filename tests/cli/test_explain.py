"""`mimetic explain`: the verdict of each rule."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Call = Callable[..., Result]

TIED = """\
from torch import nn



class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(x.mean((2, 3)).repeat(1, 4)[:, :4])


def build(in_channels, num_classes):
    return Tied()
"""


def test_rules_that_apply_and_do_not(tiny: Path, call: Call) -> None:
    """Of a layer, each parameter with its verdicts; of an arm without rules, the model's own."""
    result = call("explain", tiny, "blocks.1.spatial")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "default: blocks.1.spatial.weight, 8×1×3×3, depthwise_conv, depth 1"
    assert lines[1] == "  → model's own"
    start = lines.index("frozen: blocks.1.spatial.weight, 8×1×3×3, depthwise_conv, depth 1")
    assert lines[start + 1] == f"  filters          applies ({tiny}:11)"
    assert lines[start + 2].endswith(", frozen")
    assert "  filters          no: the rule applies to `weight`, not to `bias`" in lines


def test_a_parameter_no_rule_matches(tiny: Path, call: Call) -> None:
    """Says why each rule does not apply, and that the model's own stays."""
    result = call("explain", tiny, "blocks.0.channel.weight", "--arm", "frozen")
    assert result.exit_code == 0
    head, verdict, outcome = result.stdout.splitlines()
    assert head.startswith("frozen: blocks.0.channel.weight, 8×8×1×1, pointwise_conv, depth ")
    assert verdict.startswith("  filters          no: ")
    assert outcome == "  → model's own"


def test_a_tied_parameter_is_explained_once(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either name the same parameter, under its first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tied_model.py").write_text(TIED, encoding="utf-8")
    path = tmp_path / "tied.yaml"
    path.write_text(
        "recipe: 1\nmodel: {type: python, call: 'tied_model:build'}\ndata: digits\n"
        "init: [{id: e, match: {kind: embedding}, init: {type: normal, std: 0.02}}]\n",
        encoding="utf-8",
    )
    names = ("embed.weight", "head.weight", "embed", "head")
    found = [call("explain", path, name, "--allow-code") for name in names]
    assert [result.exit_code for result in found] == [0, 0, 0, 0], found[-1].output
    assert len({result.stdout for result in found}) == 1
    assert found[0].stdout.startswith("main: embed.weight, ")
    assert "std 0.02" in found[0].stdout


def test_a_rule_that_matches_the_alias_is_the_one_that_applies(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The explanation names the rule of the plan, and the name under which it matches."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tied_model.py").write_text(TIED, encoding="utf-8")
    Path("tied.yaml").write_text(
        "recipe: 1\nmodel: {type: python, call: 'tied_model:build'}\ndata: digits\n"
        "init: [{id: h, match: head, init: {type: normal, std: 0.02}}]\n",
        encoding="utf-8",
    )
    result = call("explain", "tied.yaml", "embed.weight", "--allow-code")
    assert "applies to `head.weight`, the same tensor, (tied.yaml:4)" in result.stdout


def test_unknown_names(tiny: Path, call: Call) -> None:
    """A layer that is not there is the user's mistake."""
    result = call("explain", tiny, "nope")
    assert result.exit_code == 2
    assert "the model has no layer or parameter `nope`" in result.stderr
