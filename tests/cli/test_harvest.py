"""`mimetic harvest`: a file, a table and a picture, or a message and nothing."""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

from mimetic.cli import harvest, show
from mimetic.covariance import store
from mimetic.covariance.store import load_harvest
from mimetic.models.build import build
from mimetic.models.config import ConvMixer
from mimetic.recipe.load import load

Call = Callable[..., Result]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights(tiny: Path) -> Path:
    """Return weights of the tiny recipe's network, beside the recipe."""
    built = build(load(tiny).arms["default"].model, in_channels=1, num_classes=10, seed=0)
    path = tiny.with_name("w.safetensors")
    save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, path)
    return path


def test_the_file_holds_what_python_measures(tiny: Path, weights: Path, call: Call) -> None:
    """Model and data of a recipe's arm, weights of a file: every layer, its geometry, its origin."""
    out = tiny.with_name("agop.safetensors")
    result = call(
        "harvest", "--recipe", tiny, "--arm", "default", "--checkpoint", weights, "-o", out, "--images", 8
    )
    assert result.exit_code == 0, result.output
    found = load_harvest(out)
    assert [h.layer for h in found.layers][:3] == ["stem.conv", "blocks.0.spatial", "blocks.0.channel"]
    assert (found.origin, found.statistic) == ("convmixer (w.safetensors)", "agop")
    assert found.layers[0].covariance.provenance.samples == 8
    assert store.read_header(out)["about"]["options"] == {"count": 8}
    assert "blocks.1.spatial" in result.stdout
    assert [path.name for path in tiny.parent.iterdir() if path.name.startswith(".")] == []


def test_weights_need_no_images(tiny: Path, weights: Path, call: Call) -> None:
    """A model by name, kinds, a statistic of the weights and its options."""
    out = tiny.with_name("filters.safetensors")
    result = call(
        *("harvest", "--recipe", tiny, "--arm", "default", "--checkpoint", weights, "--statistic", "filters"),
        *("--kind", "depthwise_conv", "--centered", "--shrink", "0.25", "--rank", "4", "-o", out),
    )
    assert result.exit_code == 0, result.output
    first, _ = load_harvest(out).layers
    assert first.covariance.provenance.rank == 4
    assert first.covariance.provenance.notes == (
        "mean filter taken out",
        "shrunk 0.25 toward its mean variance",
        "rank 4",
    )


def test_pictures_are_pictures(tiny: Path, weights: Path, call: Call) -> None:
    """Drawn from what was measured, beside the file."""
    out, picture = tiny.with_name("c.safetensors"), tiny.with_name("a.png")
    words = ("--recipe", tiny, "--arm", "default", "--checkpoint", weights, "--statistic", "nfm")
    assert call("harvest", *words, "-o", out, "--picture", picture).exit_code == 0
    with Image.open(picture) as image:
        assert image.width > 1000


def test_weights_of_a_file_need_no_network(tiny: Path, weights: Path, call: Call) -> None:
    """Layers by pattern, the filters unless another statistic is named, and what is known of the weights."""
    out = tiny.with_name("c.safetensors")
    result = call("harvest", "--tensors", weights, "--layers", r".*\.spatial", "-o", out)
    assert result.exit_code == 0, result.output
    found = load_harvest(out)
    assert [h.layer for h in found.layers] == ["blocks.0.spatial", "blocks.1.spatial"]
    assert (found.origin, found.statistic, found.layers[0].kind) == (
        "w.safetensors",
        "filters",
        "depthwise_conv",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "convmixer"], "--tensors is a file of weights without a network; leave --model out"),
        (["--tensor-kind", "konv"], "--tensor-kind: there is no kind `konv`; choose one of conv, "),
        (["--statistic", "agop"], "`agop` needs a network, and this is a file of weights"),
        (["--layers", "("], "harvest: `(` is not a regular expression"),
    ],
)
def test_weights_of_a_file_are_not_a_network(
    words: list[str], said: str, tiny: Path, weights: Path, call: Call
) -> None:
    """What needs one is refused, and nothing is written."""
    out = tiny.with_name("c.safetensors")
    result = call("harvest", "--tensors", weights, *words, "-o", out)
    assert result.exit_code == 2
    assert said in result.output
    assert not out.exists()


WRONG = {
    "no network": (
        ["--checkpoint", "{w}"],
        "which network? give either --model SOURCE:NAME or --recipe FILE",
    ),
    "two networks": (
        ["--model", "convmixer", "--recipe", "{r}", "--checkpoint", "{w}"],
        "which network? give either --model SOURCE:NAME or --recipe FILE",
    ),
    "no weights": (
        ["--recipe", "{r}", "--arm", "default", "--statistic", "nfm"],
        "which weights? give either --checkpoint FILE or --weights NAME, e.g. DEFAULT",
    ),
    "several arms": (
        ["--recipe", "{r}", "--checkpoint", "{w}"],
        "recipe `tiny` has several arms, choose one with `arm`: `default`, `frozen`",
    ),
    "another architecture": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--statistic", "nfm"],
        "w.safetensors: a checkpoint of another architecture: ",
    ),
    "no data": (
        ["--model", "convmixer", "--checkpoint", "{w}"],
        "this statistic needs images: give --data TYPE, e.g. --data cifar10",
    ),
    "unknown data": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--data", "digit"],
        "--data: there is no data type `digit`; did you mean `digits`? types: digits, cifar10",
    ),
    "a folder without a path": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--data", "image_folder"],
        "--data: `image_folder` needs --path FOLDER",
    ),
    "a folder of nothing": (
        ["--recipe", "{r}", "--arm", "default", "--checkpoint", "{w}", "--path", "photos"],
        "--path is the folder of `--data image_folder`, which is missing",
    ),
    "a path for nothing": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--data", "digits", "--path", "x"],
        "--data: `digits` takes no --path",
    ),
    "data of no images": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--data", "copying"],
        "this statistic needs images, and `copying` has tokens; give --data TYPE",
    ),
    "unknown statistic": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--statistic", "agpo"],
        "harvest: there is no statistic `agpo`; choose one of `filters`, `nfm`, `agop`, `patches`",
    ),
    "an option of another statistic": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--statistic", "nfm", "--probes", "1"],
        "harvest: `nfm` has no option `probes`; it takes `shrink`, `rank`, `of`, `normalize`",
    ),
    "another number of channels": (
        ["--recipe", "{r}", "--arm", "default", "--checkpoint", "{w}", "--images", "4", "--mean", "0.5,0.5"],
        "--mean: expected 1 numbers such as 0.5, found '0.5,0.5'",
    ),
    "a deviation of nothing": (
        ["--recipe", "{r}", "--arm", "default", "--checkpoint", "{w}", "--images", "4", "--std", "0"],
        "--std: standard deviations must be above 0, found 0",
    ),
    "no such picture": (
        ["--model", "convmixer", "--checkpoint", "{w}", "--picture", "a.bmp"],
        "--picture: a.bmp ends in none of .png, .pdf and .svg; choose one of these",
    ),
    "no such kind": (
        [
            "--recipe",
            "{r}",
            "--arm",
            "default",
            "--checkpoint",
            "{w}",
            "--statistic",
            "nfm",
            "--kind",
            "konv",
        ],
        "convmixer (w.safetensors): no layer of kind `konv` has a `nfm` (its layers: `conv`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_measured_is_said(name: str, tiny: Path, weights: Path, call: Call) -> None:
    """Exit code 2, the message, and nothing on disk."""
    words, said = WRONG[name]
    out = tiny.with_name("out.safetensors")
    result = call("harvest", *(word.format(r=tiny, w=weights) for word in words), "-o", out)
    assert result.exit_code == 2
    assert said in result.output
    assert not out.exists()


def test_weights_that_are_not_finite_leave_nothing_behind(tiny: Path, weights: Path, call: Call) -> None:
    """The tensor and its shape are named, and the file of before stays."""
    out = tiny.with_name("out.safetensors")
    out.write_bytes(b"before")
    built = build(ConvMixer(dim=8, depth=2, kernel_size=3), in_channels=1, num_classes=10, seed=0)
    state = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    state["blocks.1.spatial.weight"][0] = torch.nan
    save_file(state, weights)
    result = call("harvest", "--recipe", tiny, "--arm", "default", "--checkpoint", weights, "-o", out)
    assert result.exit_code == 2
    assert f"{weights}: NaN or infinity in `blocks.1.spatial.weight` (8×1×3×3)" in result.output
    assert out.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "{folder}"], "is a folder; give the name of a file, e.g. "),
        (
            ["-o", "{file}/out.safetensors"],
            "({file}: Not a directory); choose another place",
        ),
        (["-o", "{out}", "--picture", "{file}/a.png"], "cannot be written ({file}: Not a directory)"),
        (["-o", "{w}"], "w.safetensors is the file of the weights that are measured; choose another name"),
    ],
)
def test_places_are_looked_at_before_the_work(
    words: list[str], said: str, tiny: Path, weights: Path, call: Call
) -> None:
    """Nothing is measured, and the folder is as it was."""
    folder = tiny.with_name("folder")
    folder.mkdir()
    places = {"folder": folder, "file": tiny, "out": tiny.with_name("out.safetensors"), "w": weights}
    before, content = set(tiny.parent.rglob("*")), weights.read_bytes()
    words = [word.format_map(places) for word in words]
    result = call("harvest", "--recipe", tiny, "--arm", "default", "--checkpoint", weights, *words)
    assert result.exit_code == 2
    assert said.format_map(places) in result.output
    assert result.stdout == ""
    assert (set(tiny.parent.rglob("*")), weights.read_bytes()) == (before, content)


def shown(epilog: str) -> list[list[str]]:
    """Return the commands of an example, each with the lines it is said to print."""
    lines = epilog.replace("\b", "").partition("Example:")[2].splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("  $ ")]
    parts = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    return [[part[0].removeprefix("  $ "), *(line for line in part[1:] if line.strip())] for part in parts]


@pytest.mark.slow
def test_examples_are_true(
    recipes: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the help shows is what is printed, line by line; published weights are not fetched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(recipes)
    model = load(recipes / "quickstart.yaml").arms["default"].model
    built = build(model, in_channels=1, num_classes=10, seed=0)
    save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, "w.safetensors")
    for command, *lines in (*shown(harvest.EPILOG)[:1], *shown(show.EPILOG)):
        result = call(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
        printed = iter([" ".join(line.split()) for line in result.output.splitlines()])
        for line in lines:
            pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("…"))
            assert any(re.fullmatch(pattern, text) for text in printed), line


@pytest.mark.data
def test_a_published_squeezenet_on_photographs(tmp_path: Path, call: Call) -> None:
    """Gradients of 1000 outputs by probes, of its convolutions alone, normalized as ImageNet is."""
    checkpoint = Path(os.environ["MIMETIC_DATA"]) / "weights" / "squeezenet1_0-imagenet.safetensors"
    if not checkpoint.is_file() or not (checkpoint.parents[1] / "imagenet-sample").is_dir():
        pytest.skip("needs the checkpoint and the photographs")
    out = tmp_path / "agop.safetensors"
    result = call(
        *("harvest", "--model", "torchvision:squeezenet1_0", "--checkpoint", checkpoint, "--probes", 1),
        *("--data", "image_folder", "--path", "imagenet-sample", "--images", 4, "--image-size", 96),
        *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--kind", "conv", "-o", out),
    )
    assert result.exit_code == 0, result.output
    found = load_harvest(out)
    assert [h.layer for h in found.layers][:2] == ["features.0", "features.3.expand3x3"]
    assert all(h.covariance.trace > 0.0 for h in found.layers)
