"""`mimetic.harvest` and `mimetic.ansatz`: tensors and loaders in, measurements and a file out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mimetic
from mimetic.covariance import store
from mimetic.covariance.store import load_harvest
from mimetic.errors import UserError


@pytest.fixture
def net() -> nn.Module:
    """Return a small network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5))


@pytest.fixture
def images() -> torch.Tensor:
    """Return twenty images."""
    return torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_loader_gives_what_its_tensor_gives(net: nn.Module, images: torch.Tensor) -> None:
    """Labels beside the images or not, until there are enough of them."""
    labels = torch.zeros(20)
    loaders: list[Any] = [
        DataLoader(TensorDataset(images, labels), batch_size=6),
        DataLoader(images, batch_size=7),  # type: ignore[arg-type]
        [[images[:16]], [images[16:]]],
        (batch for batch in images.split(5)),
    ]
    expected = mimetic.harvest(net, images, count=16)
    assert [mimetic.harvest(net, loader, count=16).digest for loader in loaders] == [expected.digest] * 4
    assert expected.layers[0].covariance.provenance.samples == 16
    assert (expected.statistic, expected.origin) == ("agop", "Sequential")


def test_a_file_is_kept_where_asked_for(net: nn.Module, tmp_path: Path) -> None:
    """With its options for the reader, and it initializes another network."""
    path = tmp_path / "deep" / "filters.safetensors"
    found = mimetic.harvest(net, statistic="filters", path=str(path), origin="mine", centered=True)
    assert load_harvest(path).digest == found.digest
    assert store.read_header(path)["about"]["options"] == {"centered": True}
    other = nn.Sequential(nn.Conv2d(3, 9, 5), nn.Flatten(), nn.Linear(9 * 16, 2))
    rule = {"id": "a", "match": {"kind": "conv"}, "covariance": {"type": "file", "path": str(path)}}
    plan = mimetic.initialize(other, {"recipe": 1, "name": "x", "init": [rule]})
    notes = plan.entry("0.weight").notes
    assert notes[:3] == (
        "mean filter taken out",
        "depth 0.00 at 0 of filters.safetensors",
        "resized 3×3→5×5, trace kept",
    )


def test_initial_weights_and_kinds_are_passed_on(net: nn.Module) -> None:
    """The change of a network that did not change is nothing."""
    found = mimetic.harvest(net, statistic="nfm", of="change", initial=net, kinds=["linear"])
    assert [(h.layer, h.covariance.trace) for h in found.layers] == [("3", 0.0)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"statistic": "agpo"},
            "harvest: there is no statistic `agpo`; choose one of `filters`, `nfm`, `agop`",
        ),
        ({"powr": 1}, "harvest: `agop` has no option `powr`; it takes `shrink`, `rank`, `power`, `count`"),
        ({"layers": "name"}, "harvest: `agop` has no option `layers`"),
        ({"count": 0}, "harvest: the options of `agop` are invalid: `images`: Input should be greater"),
        ({"power": 2.0}, "harvest: the options of `agop` are invalid: `power`: "),
        ({"count": 4, "images": None}, "Sequential: `agop` needs images"),
        ({"images": []}, "Sequential: `agop` needs images"),
        ({"images": [{"x": 1}]}, "the loader yields dict; its batches must be tensors"),
        ({"images": torch.zeros(0, 3, 8, 8)}, "Sequential: `agop` needs images"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    net: nn.Module, images: torch.Tensor, tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    """Before anything is measured where possible."""
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        mimetic.harvest(net, **{"images": images, **arguments}, path=tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_ansatz_of_a_network_of_ones_own(net: nn.Module, images: torch.Tensor) -> None:
    """From a tensor or a loader; the head is left out; with the start where it is known."""
    first = mimetic.ansatz(net, images, count=16)
    again = mimetic.ansatz(net, DataLoader(images, batch_size=7), count=16)  # type: ignore[arg-type]
    assert [(layer.site.layer, layer.agreement) for layer in first] == [
        (layer.site.layer, layer.agreement) for layer in again
    ]
    (layer,) = first
    assert (layer.site.layer, layer.agreement.rho_init) == ("0", None)
    (known,) = mimetic.ansatz(net, images, count=16, initial=net)
    assert known.agreement.rho_init == pytest.approx(1.0)
    assert known.agreement.rho == layer.agreement.rho


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kinds": ["linear"]}, "Sequential: the ansatz is measured at convolutions and linear layers below"),
        ({"images": None}, "Sequential: `ansatz` needs images, at `0`"),
        ({"images": torch.zeros(2, 4, 8, 8)}, "Sequential: the network does not take images of 4×8×8"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "in floating point, normalized"),
    ],
)
def test_what_has_no_ansatz_is_said(net: nn.Module, arguments: dict[str, Any], said: str) -> None:
    """With what to give instead."""
    given = {"images": torch.zeros(2, 3, 8, 8), **arguments}
    with pytest.raises(UserError, match=said):
        mimetic.ansatz(net, **given)
