"""The atlas: entries by name, their cards, and what they initialize."""

import json
import math
import socket
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from typer.testing import CliRunner

import mimetic
from mimetic.analysis.filters import filters_figure
from mimetic.cli import app
from mimetic.covariance.atlas import VARIABLE, Card, atlas, find_entry
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.store import ATTENTION, FORMAT, load_harvest, read_header, save_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry
from mimetic.initializers.attention_statistics import Values, load_attention
from mimetic.models.build import build
from mimetic.models.config import ConvMixer, Vit

FORMATS = {name: read_header(entry.path, (FORMAT, ATTENTION))["format"] for name, entry in atlas().items()}
COVARIANCES = [name for name, found in FORMATS.items() if found == FORMAT]
ATTENTIONS = [name for name, found in FORMATS.items() if found == ATTENTION]

CARD = dict.fromkeys(Card.model_fields, "text")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with one entry, `mine`, that the atlas searches."""
    factor = torch.eye(9, dtype=torch.float64)
    cov = Covariance(factor, PatchGeometry(1, (3, 3)))
    layer = Harvested("a", "depthwise_conv", 0.0, Geometry(4, 4, (3, 3), (1, 1), 4), cov)
    save_harvest(tmp_path / "mine.safetensors", Harvest("a network", "filters", (layer,), spatial=True))
    (tmp_path / "mine.json").write_text(json.dumps(CARD))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", atlas())
def test_every_entry_is_whole(name: str) -> None:
    """A shipped entry has a card and values that can be read, and at most a megabyte."""
    entry = find_entry(name)
    assert all(getattr(entry.card, field) for field in Card.model_fields if field != "results")
    assert (load_harvest if name in COVARIANCES else load_attention)(entry.path).layers
    assert entry.path.stat().st_size <= 2**20


def test_own_folder_is_searched(own: Path) -> None:
    """An entry of a user's folder stands beside the shipped ones."""
    assert {"mine", "convmixer-64-8-k7-p2-cifar10"} <= atlas().keys()
    assert find_entry("mine").path == own / "mine.safetensors"
    assert find_entry("mine").card.title == "text"


@pytest.mark.parametrize("card", ["{", "[]", "{}", '{"title": 1}', json.dumps({**CARD, "more": "x"})])
@pytest.mark.usefixtures("own")
def test_a_damaged_card_is_an_error(own: Path, card: str) -> None:
    """The error names the file."""
    (own / "mine.json").write_text(card)
    with pytest.raises(UserError, match=r"mine\.json") as caught:
        _ = find_entry("mine").card
    assert caught.value.code == "MIM-V302"


def test_a_missing_card_is_an_error(own: Path) -> None:
    """The error names the file."""
    (own / "mine.json").unlink()
    with pytest.raises(UserError, match=r"mine\.json") as caught:
        _ = find_entry("mine").card
    assert caught.value.code == "MIM-V303"


@pytest.mark.parametrize("card", ["{", None])
def test_a_damaged_card_leaves_the_others_in_the_list(own: Path, card: str | None) -> None:
    """The entry is listed with its error."""
    (own / "mine.json").unlink() if card is None else (own / "mine.json").write_text(card)
    listed = CliRunner().invoke(app, ["ls", "atlas", "--json"])
    assert listed.exit_code == 0, listed.output
    found = json.loads(listed.stdout)["atlas"]
    assert found.keys() == atlas().keys()
    assert "MIM-V30" in found["mine"]
    assert found["ppocrv6-det-k3"] == find_entry("ppocrv6-det-k3").card.title


def test_an_unknown_name_is_an_error() -> None:
    """The nearest name is suggested; a path is no name."""
    with pytest.raises(UserError, match="did you mean `convmixer-64-8-k7-p2-cifar10`") as caught:
        find_entry("convmixer-64-8-k7-p2-cifar")
    assert caught.value.code == "MIM-V301"
    with pytest.raises(UserError, match="no entry"):
        find_entry("../atlas/convmixer-64-8-k7-p2-cifar10")


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(64, 64, 7, groups=64),
        torch.nn.Conv2d(32, 32, 3, groups=32),
        torch.nn.Conv2d(96, 96, 9, groups=96),
    ],
)
@pytest.mark.parametrize("name", ["convmixer-64-8-k7-p2-cifar10", "ppocrv6-det-k7"])
def test_a_rule_takes_an_entry(layer: torch.nn.Conv2d, name: str) -> None:
    """Depthwise layers of any kernel are drawn with the energy of the entry, and the plan names it."""
    covariance = {"type": "atlas", "name": name}
    rule = {"id": "filters", "match": {"kind": "depthwise_conv"}, "covariance": covariance, "scale": "none"}
    plan = mimetic.initialize(torch.nn.Sequential(layer), {"recipe": 1, "init": [rule]})
    assert f"atlas {name}" in " ".join(note for entry in plan.entries for note in entry.notes)
    first = load_harvest(find_entry(name).path).layers[0].covariance
    assert first is not None
    energy = layer.weight.detach().double().flatten(1).square().sum(1)
    assert float(energy.mean()) == pytest.approx(first.trace, rel=6.0 / len(energy) ** 0.5)


NETWORKS: dict[str, dict[str, object]] = {
    "convmixer": {"type": "convmixer", "dim": 8, "depth": 2, "kernel_size": 5},
    "convnext": {"type": "timm", "name": "convnext_atto"},
    "mobilenet": {"type": "torchvision", "name": "mobilenet_v3_small"},
}


def atlas_rule(name: str) -> dict[str, object]:
    """Return a rule that draws depthwise filters from an entry."""
    kind = load_harvest(find_entry(name).path).layers[0].kind
    covariance = {"type": "atlas", "name": name, "kind": kind}
    match = {"kind": "depthwise_conv"}
    return {"id": "filters", "match": match, "covariance": covariance, "scale": "match_default"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> torch.nn.Module:
    """Return a network of ours, of timm or of torchvision."""
    spec = NETWORKS[request.param]
    if spec["type"] == "timm":
        return timm.create_model(str(spec["name"]), num_classes=4)
    if spec["type"] == "torchvision":
        return torchvision.models.get_model(str(spec["name"]), num_classes=4)
    return build(ConvMixer.model_validate(spec), in_channels=3, num_classes=4, seed=0)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", COVARIANCES)
def test_every_entry_initializes_every_network(network: torch.nn.Module, name: str) -> None:
    """Depthwise filters have the energy of the default; the plan names the entry, a picture shows them."""
    plan = mimetic.initialize(network, {"recipe": 1, "init": [atlas_rule(name)]})
    drawn = [entry for entry in plan.entries if entry.rule is not None]
    depthwise = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert len(drawn) == len(depthwise)
    assert all(f"of atlas {name}" in " ".join(entry.notes) for entry in drawn)
    weights = {entry.parameter: network.get_parameter(entry.parameter).detach() for entry in drawn}
    energies = [float(weight.flatten(1).square().sum(1).mean()) for weight in weights.values()]
    assert sum(energies) / len(energies) == pytest.approx(1 / 3, rel=0.5)
    figure = filters_figure({layer: weights[layer].numpy() for layer in list(weights)[:1]}, title=name)
    assert figure.axes


VITS = {
    "ours": lambda: build(
        Vit(width=48, depth=5, heads=3, patch_size=8), in_channels=3, num_classes=4, seed=0
    ),
    "timm": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=48, depth=2, num_classes=4
    ),
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("vit", VITS)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_initializes_transformers(name: str, vit: str) -> None:
    """Ends have the numbers of its ends; what was drawn has them again, within the error of a draw."""
    network, found = VITS[vit](), load_attention(find_entry(name).path)
    init = {"type": "mimetic_attention", "from": {"atlas": name}}
    recipe = {"recipe": 1, "init": [{"id": "a", "match": {"kind": "attention"}, "init": init}]}
    plan = mimetic.initialize(network, recipe, seed=0)
    weights = [entry for entry in plan.entries if entry.parameter.endswith("attn.qkv.weight")]
    for entry, layer in zip((weights[0], weights[-1]), (found.layers[0], found.layers[-1]), strict=True):
        numbers = {number: getattr(layer, number) for number in Values._fields}
        assert {number: entry.arguments[number] for number in numbers} == pytest.approx(numbers)
        assert f"at {layer.layer} of atlas {name}" in " ".join(entry.notes)
    for entry, drawn in zip(weights, mimetic.harvest_attention(network).layers, strict=True):
        for product in ("qk", "vp"):
            pair = (f"{product}_noise", f"{product}_diag")
            size = math.hypot(*(float(entry.arguments[number]) for number in pair))
            for number in pair:
                assert getattr(drawn, number) == pytest.approx(entry.arguments[number], abs=0.08 * size)


@pytest.mark.usefixtures("offline")
def test_the_plan_of_each_network_says_where_filters_are_from(tmp_path: Path) -> None:
    """`mimetic plan` shows entry, scale and layer of the teacher; `mimetic show` the card."""
    name = "convmixer-64-8-k7-p2-cifar10"
    arms = {network: {"model": model, "init": [atlas_rule(name)]} for network, model in NETWORKS.items()}
    data = {"type": "digits", "image_size": 32}
    recipe = {"recipe": 1, "data": data, "model": NETWORKS["convmixer"], "arms": arms}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    for network in NETWORKS:
        result = CliRunner().invoke(app, ["plan", str(tmp_path / "r.yaml"), "--arm", network])
        assert result.exit_code == 0, result.output
        shown = " ".join(result.output.split())
        assert f"name={name}) · match_default" in shown
        assert f"depth 0.00 at blocks.0.spatial of atlas {name}" in shown


def test_the_command_line_lists_and_shows_entries() -> None:
    """`ls atlas` has the names, and `show atlas:NAME` the card."""
    assert set(atlas()) <= set(CliRunner().invoke(app, ["ls", "atlas"]).output.split())
    shown = CliRunner().invoke(app, ["show", "atlas:ppocrv6-det-k3"]).output
    assert "Apache-2.0" in shown
    assert "13 layers" in shown
