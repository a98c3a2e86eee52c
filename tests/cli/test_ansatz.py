"""`mimetic ansatz`: a table, all numbers, three pictures, or a message and nothing."""

import csv
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

from mimetic.analysis.style import spread
from mimetic.cli import ansatz
from mimetic.covariance.ansatz import MEASURES
from mimetic.models.build import build
from mimetic.models.config import ConvMixer
from mimetic.recipe.load import load

Call = Callable[..., Result]


@pytest.fixture
def weights(tiny: Path) -> Path:
    """Return weights of the tiny recipe's network, of another seed, beside the recipe."""
    built = build(load(tiny).arms["default"].model, in_channels=1, num_classes=10, seed=5)
    path = tiny.with_name("w.safetensors")
    save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, path)
    return path


def asked(tiny: Path, weights: Path, *more: str | Path) -> tuple[str | Path, ...]:
    """Return the words that measure the tiny recipe's network."""
    return ("ansatz", "--recipe", tiny, "--arm", "default", "--checkpoint", weights, "--images", "8", *more)


def test_numbers_and_pictures(tiny: Path, weights: Path, call: Call) -> None:
    """The trained network beside the untrained one of the seed, in a table, a file and figures."""
    numbers, folder = tiny.with_name("out.csv"), tiny.with_name("figures")
    result = call(*asked(tiny, weights, "--seed", "5", "--csv", numbers, "--figures", folder))
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(numbers.read_text().splitlines()))
    assert [row["layer"] for row in rows][:3] == ["stem.conv", "blocks.0.spatial", "blocks.0.channel"]
    assert set(rows[0]) == {"layer", "kind", "depth", *MEASURES, *(f"untrained_{name}" for name in MEASURES)}
    # The file holds the weights of just this seed: the two networks are one.
    assert all(row["rho"] == row["untrained_rho"] for row in rows)
    assert [float(row["rho_init"]) for row in rows] == pytest.approx([1.0] * 5)
    assert {row["rho_change"] for row in rows} == {""}
    assert "convmixer (w.safetensors), 5 layers, 8 images: mean ρ" in result.stdout
    assert "higher in 0 of 5" in result.stdout
    for name in ("depth.png", "eigenfilters.png", "saliency.png"):
        assert f"figure {folder / name}" in result.stdout
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300


def test_another_seed_is_another_untrained_network(tiny: Path, weights: Path, call: Call) -> None:
    """Kinds choose the layers; depthwise layers alone have no saliency maps."""
    folder = tiny.with_name("figures")
    result = call(*asked(tiny, weights, "--kind", "depthwise_conv", "--figures", folder))
    assert result.exit_code == 0, result.output
    assert "2 layers, 8 images" in result.stdout
    assert {path.name for path in folder.iterdir()} == {"depth.png", "eigenfilters.png"}


def test_every_output_is_the_default_of_few(tiny: Path, weights: Path, call: Call) -> None:
    """`--probes exact` gives the numbers of ten outputs that no option gives, and a probe gives others."""

    def numbers(*words: str) -> str:
        result = call(*asked(tiny, weights, *words, "--csv", tiny.with_name("out.csv")))
        assert result.exit_code == 0, result.output
        return tiny.with_name("out.csv").read_text()

    assert numbers() == numbers("--probes", "exact") != numbers("--probes", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--kind", "norm"],
            "there is none of kind `norm` (kinds here: `conv`, `depthwise_conv`,",
        ),
        (["--model", "convmixer"], "which network? give either --model SOURCE:NAME or --recipe FILE"),
        (["--weights", "DEFAULT"], "which weights? give either --checkpoint FILE or --weights NAME"),
        (["--images", "0"], "Invalid value for '--images'"),
        (["--probes", "0"], "[MIM-X132]"),
        (["--probes", "exakt"], "[MIM-X132]"),
        (["--data", "cifr10"], "--data: there is no data type `cifr10`; did you mean `cifar10`?"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], said: str, tiny: Path, weights: Path, call: Call
) -> None:
    """In a sentence, and nothing is written."""
    before = set(tiny.parent.iterdir())
    result = call(*asked(tiny, weights, *words, "--csv", tiny.with_name("out.csv")))
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert said in " ".join(result.output.split())
    assert set(tiny.parent.iterdir()) == before


def test_the_example_is_true(
    tmp_path: Path, recipes: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command of the help runs, and says what it shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(recipes)
    arm = load("recipes/quickstart.yaml").arms["default"]
    assert isinstance(arm.model, ConvMixer)
    built = build(arm.model, in_channels=1, num_classes=10, seed=0)
    save_file({name: tensor.clone() for name, tensor in built.state_dict().items()}, "w.safetensors")
    command = next(line for line in ansatz.EPILOG.splitlines() if line.startswith("  $ "))
    result = call(*shlex.split(command.removeprefix("  $ mimetic ")))
    assert result.exit_code == 0, result.output
    assert "blocks.0.spatial  64×1×5×5" in result.stdout
    assert "ansatz of convmixer (w.safetensors), 8 layers, 9 images: mean ρ" in result.stdout


def test_layers_are_spread_over_depth() -> None:
    """The first and the last among them."""
    assert spread([1, 2], 3) == [1, 2]
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]


@pytest.mark.data
def test_the_published_resnet_learned_its_features(call: Call, tmp_path: Path) -> None:
    """On real images, ρ(NFM, AGOP) of CIFAR-10's ResNet-20 lies clearly above the untrained network's."""
    checkpoint = Path(os.environ["MIMETIC_DATA"]) / "weights" / "cifar10_resnet20-4118986f.pt"
    if not checkpoint.is_file():
        pytest.skip(f"needs {checkpoint.name} below MIMETIC_DATA/weights")
    out = tmp_path / "r20.csv"
    words = ("--model", "cifar_resnet", "--checkpoint", checkpoint, "--data", "cifar10")
    result = call("ansatz", *words, "--images", "16", "--csv", out)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.read_text().splitlines()))
    gain = [float(row["rho"]) - float(row["untrained_rho"]) for row in rows]
    assert len(gain) == 21
    assert sum(gain) / len(gain) > 0.1
    assert min(gain[-12:]) > 0.1, "the deeper half, layer by layer"
