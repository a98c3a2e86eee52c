"""`mimetic similarity`: checkpoints of one network, with images and without."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from mimetic.data.shapes import ImageShape
from mimetic.models.build import build
from mimetic.recipe.load import load
from mimetic.surgery.network import build_network

Call = Callable[..., Result]


@pytest.fixture
def pair(tiny: Path) -> list[Path]:
    """Return weights of the tiny recipe's network under two seeds, beside the recipe."""
    files = []
    for seed in (0, 1):
        built = build(load(tiny).arms["default"].model, in_channels=1, num_classes=10, seed=seed)
        files.append(tiny.with_name(f"{seed}.safetensors"))
        save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, files[-1])
    return files


def test_two_checkpoints(tiny: Path, pair: list[Path], call: Call) -> None:
    """A row for each layer, and the same figures in the file."""
    csv = tiny.with_name("s.csv")
    options = ("--recipe", tiny, "--arm", "default", "--images", 20, "--csv", csv)
    result = call("similarity", *pair, *options)
    assert result.exit_code == 0, result.output
    lines = csv.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "layer,one,other,features,filters,chance,kernels"
    assert [line.split(",")[0] for line in lines[1:]][:3] == [
        "stem.conv",
        "blocks.0.spatial",
        "blocks.0.channel",
    ]
    assert "blocks.1.channel" in result.stdout
    assert "20 images" in result.stdout


def test_weights_alone(tiny: Path, pair: list[Path], call: Call) -> None:
    """Kernels and the first layer."""
    result = call("similarity", *pair, "--recipe", tiny, "--arm", "default", "--weights-only")
    assert result.exit_code == 0, result.output
    assert "weights only" in result.stdout


def test_networks_are_built_as_their_recipe_rewrites_them(tmp_path: Path, call: Call) -> None:
    """The surgery of an arm belongs to its checkpoints' networks."""
    path, weights = tmp_path / "rewritten.yaml", tmp_path / "w.safetensors"
    path.write_text(
        "recipe: 1\nmodel: {type: cifar_resnet, depth: 8, width: 4}\ndata: digits\nsurgery:\n"
        "  - {id: combine, match: {kind: conv}, type: linear_combination}\n",
        encoding="utf-8",
    )
    arm = load(path).arms["main"]
    built = build_network(arm.model, arm.surgery, shape=ImageShape(1, 8, 8, 10)).model
    save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, weights)
    result = call("similarity", weights, weights, "--recipe", path, "--weights-only")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vgg11"], "give --data TYPE"),
        ([], "which network?"),
        (["--model", "vgg11", "--weights-only"], "a checkpoint of another architecture"),
        (["--weights-only", "--model", "vgg11", "--csv", "."], ". is a folder; give the name of a file"),
    ],
)
def test_mistakes(pair: list[Path], call: Call, arguments: list[str], message: str) -> None:
    """What is missing is said."""
    result = call("similarity", *pair, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_what_is_no_network_is_named(tiny: Path, pair: list[Path], call: Call) -> None:
    """Neither a file nor a folder; and weights that are not finite, by their name."""
    options = ("--recipe", tiny, "--arm", "default", "--weights-only")
    result = call("similarity", pair[0], "absent", *options)
    assert (result.exit_code, "there is no file or folder absent" in result.output) == (2, True)
    state = load_file(pair[1])
    state["blocks.1.spatial.weight"][0] = torch.nan
    save_file(state, pair[1])
    result = call("similarity", *pair, *options)
    assert result.exit_code == 2
    assert f"{pair[1]}: NaN or infinity in `blocks.1.spatial.weight` (8×1×3×3)" in result.output
