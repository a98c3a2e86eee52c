"""`mimetic show`: the table of a covariance file, its notes, its picture."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import mimetic
from mimetic.covariance import store
from mimetic.covariance.closed_form import closed_form
from mimetic.models.build import build
from mimetic.models.config import ConvMixer

Call = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with the AGOP of a small network."""
    path = tmp_path / "agop.safetensors"
    net = build(ConvMixer(dim=8, depth=2, kernel_size=3), in_channels=3, num_classes=4, seed=0)
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 8, 8, generator=stream)
    mimetic.harvest(net, images, probes=2, path=path, origin="a small network")
    return path


def test_each_layer_has_a_row(file: Path, call: Call) -> None:
    """Kind, shapes, rank, trace and spectrum, under a line that says what they are of."""
    shown = call("show", file).stdout
    lines = shown.splitlines()
    layers = store.load_harvest(file).layers
    assert lines[0].startswith(f"{file}: agop of a small network, 6 layers, digest ")
    for found in layers:
        (row,) = [line.split() for line in lines if line.split()[:2] == [found.layer, found.kind]]
        assert row[4:7] == [str(found.covariance.provenance.rank), "of", str(found.covariance.patch.size)]
        assert row[7] == f"{found.covariance.trace:.4g}"
        assert row[8] == f"{float(found.covariance.eigenvalues()[0]):.4g}"
    assert "blocks.0.spatial  depthwise_conv  8×1×3×3  1×3×3" in shown


def test_each_note_is_said_once(file: Path, call: Call) -> None:
    """With the first layer it is of, and how many more."""
    assert "  stem.conv and 5 more: 2 random probes per image" in call("show", file).stdout.splitlines()


def test_formulas_are_fitted(file: Path, call: Call) -> None:
    """A row for each layer with a kernel, and a section whose widths follow depth."""
    lines = call("show", file, "--fit", "closed_form").stdout.splitlines()
    assert sum(line.endswith("%") for line in lines) == 3
    assert lines[-1].startswith("  depthwise_conv: covariance: {type: closed_form, width: {start: ")
    assert call("show", file, "--fit", "gauss").exit_code == 2
    record = json.loads(call("show", file, "--fit", "v1", "--json").stdout)
    assert [fit["layer"] for fit in record["fits"]] == ["stem.conv", "blocks.0.spatial", "blocks.1.spatial"]


def test_pictures_are_drawn(file: Path, call: Call) -> None:
    """In the format of their ending, any other is refused."""
    picture = file.with_suffix(".svg")
    result = call("show", file, "--picture", picture)
    assert result.exit_code == 0, result.output
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    assert result.stdout.splitlines()[-1] == f"picture {picture}"
    refused = call("show", file, "--picture", "a.bmp")
    assert (refused.exit_code, "ends in none of .png, .pdf and .svg" in refused.output) == (2, True)


def test_what_is_no_harvest_is_refused(tmp_path: Path, call: Call) -> None:
    """A missing file and covariances without their layers are told apart."""
    path = tmp_path / "cov.safetensors"
    assert "there is no such covariance file" in call("show", path).output
    store.save(path, {"a": closed_form((3, 3), 0.5)})
    result = call("show", path)
    assert (result.exit_code, "MIM-V233" in result.output) == (2, True)
    recipe = call("show", "recipe.yaml")
    assert (recipe.exit_code, "mimetic plan recipe.yaml" in recipe.output) == (2, True)


@pytest.mark.parametrize(
    ("name", "meant"), [("ppocrv6-det-k7", "atlas:ppocrv6-det-k7"), ("timm", "mimetic ls timm")]
)
def test_a_name_that_is_not_a_file(name: str, meant: str, call: Call) -> None:
    """Entries of the atlas have a prefix; what is a type or a section is listed by another verb."""
    result = call("show", name)
    assert (result.exit_code, f"`{meant}`" in result.output) == (2, True)
