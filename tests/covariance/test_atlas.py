"""The atlas: entries by name, their cards, and what they initialize."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import mimetic
from mimetic.cli import app
from mimetic.covariance.atlas import VARIABLE, Card, atlas, find_entry
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.errors import UserError
from mimetic.graph.site import Geometry

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
    """A shipped entry has a card and covariances that can be read, and at most a megabyte."""
    entry = find_entry(name)
    assert all(getattr(entry.card, field) for field in Card.model_fields if field != "results")
    assert load_harvest(entry.path).layers
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


def test_the_command_line_lists_and_shows_entries() -> None:
    """`ls atlas` has the names, and `show atlas:NAME` the card."""
    assert set(atlas()) <= set(CliRunner().invoke(app, ["ls", "atlas"]).output.split())
    shown = CliRunner().invoke(app, ["show", "atlas:ppocrv6-det-k3"]).output
    assert "Apache-2.0" in shown
    assert "13 layers" in shown
