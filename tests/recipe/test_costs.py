"""What a recipe costs is estimated before anything is built."""

import time

import pytest

from mimetic.config.errors import RecipeError
from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import Timm
from mimetic.recipe.load import loads

EXCESSIVE = [
    ("model: {type: convmixer, dim: 4611686018427387904}", "4611686018427387904", "MIM-R093"),
    ("model: {type: convmixer, depth: 100000}", "100000", "MIM-R094"),
    ("model: {type: convmixer, kernel_size: 1000000001, depth: 1}", "1000000001", "MIM-R093"),
    ("model: {type: convmixer, patch_size: 100000000}", "100000000", "MIM-R093"),
    ("model: {type: convmixer, num_classes: 1000000000000}", "1000000000000", "MIM-R093"),
    ("model: {type: convmixer, in_channels: 1000000000000}", "1000000000000", "MIM-R093"),
    ("model: {type: cifar_resnet, width: 10000000}", "10000000", "MIM-R093"),
    ("model: {type: cifar_resnet, kernel_size: 10000001}", "10000001", "MIM-R093"),
    ("model: {type: cifar_resnet_lc, name: ResNet-LC-110-99999x9999}", "ResNet", "MIM-R093"),
    ("model: {type: vgg11, width: 1000000}", "1000000", "MIM-R093"),
    ("model: {type: plain_cnn, widths: [1000000, 1000000]}", "[1000000", "MIM-R093"),
    ("model: {type: mamba, dim: 1000000}", "1000000", "MIM-R093"),
    ("model: {type: mamba, depth: 1000000}", "1000000", "MIM-R094"),
    ("model: {type: mamba, state: 10000000000}", "10000000000", "MIM-R093"),
    ("model: {type: vit, mlp_ratio: 1.0e300}", "1.0e300", "MIM-R093"),
    ("model: {type: vit, image_size: 1000000}", "1000000", "MIM-R093"),
    ("model: {type: vit, width: 3000000}", "3000000", "MIM-R093"),
    ("model: {type: timm, name: resnet18, args: {depth: 1000000000}}", "1000000000", "MIM-R095"),
    ("data: {type: copying, lengths: [1, 1000000000]}", "[1, 1000000000]", "MIM-R092"),
    ("data: {type: copying, test_lengths: [1000000000]}", "[1000000000]", "MIM-R092"),
    ("data: {type: copying, train_size: 1000000000000}", "1000000000000", "MIM-R092"),
    ("data: {type: digits, image_size: 100000}", "100000", "MIM-R092"),
    ("data: {type: image_folder, path: x, image_size: 1000000}", "1000000", "MIM-R092"),
    ("data: {type: synthetic, count: 1000000000000}", "1000000000000", "MIM-R092"),
    ("data: {type: synthetic, shape: [3, 1000000]}", "[3, 1000000]", "MIM-R092"),
    ("data: {type: row_signal, shape: [1000000, 1000000]}", "[1000000", "MIM-R092"),
    ("data: {type: noisy_digits, frame: 10000000}", "10000000", "MIM-R092"),
    ("learner: {type: rfm, images: 1000000}\ndata: {type: image_folder, path: x}", "1000000", "MIM-R096"),
    (
        "learner: {type: convrfm, patch_size: 100000}\ndata: {type: digits, val_size: 10}",
        "100000",
        "MIM-R096",
    ),
    ("learner: {type: cntk, depth: 1000000}\ndata: {type: digits, val_size: 10}", "1000000", "MIM-R097"),
    ("learner: {type: rfm, rounds: 1000000000000}\ndata: {type: digits, val_size: 10}", "1", "MIM-R098"),
    ("train: {epochs: 1000000000000}", "1000000000000", "MIM-R091"),
    ("seeds: 1000\narms: {" + ", ".join(f"a{i}: {{}}" for i in range(11)) + "}", "1000", "MIM-R090"),
]


@pytest.mark.parametrize(("text", "place", "code"), EXCESSIVE, ids=lambda text: str(text)[:50])
def test_excess_is_refused_at_its_line(text: str, place: str, code: str) -> None:
    """At the field that makes it large, with the estimate and how to raise the limit, and at once."""
    started = time.monotonic()
    with pytest.raises(RecipeError) as refused:
        loads(f"recipe: 1\n{text}\n")

    issue = next(issue for issue in refused.value.issues if issue.code == code)
    assert issue.mark is not None
    assert (issue.mark.text or "")[issue.mark.column - 1 :].startswith(place)
    assert "MIMETIC_MAX_" in (issue.hint or "")
    assert time.monotonic() - started < 5.0


def test_limits_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that the message names."""
    monkeypatch.setenv("MIMETIC_MAX_LAYERS", "1e6")

    loads("recipe: 1\nmodel: {type: convmixer, depth: 100000}\n")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("vit_tiny_patch16_224", {"depth": 100_000}), ("vit_tiny_patch16_224", {"embed_dim": 999_999})],
)
def test_what_only_building_tells_is_stopped(name: str, arguments: dict[str, object]) -> None:
    """A constructor of a library ends as soon as it has made too much."""
    with pytest.raises(UserError) as refused:
        build(Timm(name=name, args=arguments), in_channels=3, num_classes=10, meta=True)

    assert refused.value.code == "MIM-M051"
