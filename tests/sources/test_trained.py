"""One object for a trained network: planned from, measured, and cached by the version of its code."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from mimetic.config import registry
from mimetic.covariance.config import Measured, Nfm
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.store import load_harvest, read_header
from mimetic.covariance.weights import nfm
from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.models.config import ConvMixer
from mimetic.sources.trained import TrainedSource

HERE = {"from": {"stage": "here"}}


@pytest.fixture
def network() -> nn.Module:
    """Return a network of one convolution."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3))


def test_cached_harvests_know_the_version_of_their_code(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harvest is read from its file, until the code that measures it changes."""
    source = TrainedSource(name="here", module=network, folder=tmp_path, cached=True)
    spec = Nfm.model_validate(HERE)
    first = source.measure(spec)
    nn.init.ones_(network[0].weight)
    assert source.measure(spec).digest == first.digest
    monkeypatch.setattr(Nfm, "version", 2)
    second = source.measure(spec)
    assert second.digest != first.digest
    files = {load_harvest(path).digest: read_header(path)["about"]["version"] for path in tmp_path.iterdir()}
    assert files == {first.digest: 1, second.digest: 2}


def doubled(_spec: Measured, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return twice the NFM of each layer."""
    return {site.layer: nfm(2**0.5 * network.weight(site)) for site in task.sites}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Measured]]:
    """Register a statistic as a plug-in does, and remove it afterwards."""
    module = ModuleType("plugin_of_a_test")
    module.doubled = doubled  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugin_of_a_test", module)

    class Doubled(Measured, type="doubled", measure="plugin_of_a_test:doubled"):
        """Twice the NFM."""

    yield Doubled
    del registry._families["covariance"]["doubled"]


def test_a_statistic_of_a_plugin_is_planned_and_measured(network: nn.Module, plugin: type[Measured]) -> None:
    """It names its function, and inherits the layers where it can be measured."""
    import mimetic

    spec = plugin.model_validate(HERE)
    model = ConvMixer(dim=8, depth=1, kernel_size=3, patch_size=2)
    planned = TrainedSource(name="stage here", model=model, shape=ImageShape(1, 8, 8, 10)).available(spec)
    assert planned.digest is None
    assert "blocks.0.spatial" in [layer.layer for layer in planned.layers]
    measured = TrainedSource(name="here", module=network).measure(spec)
    single = TrainedSource(name="here", module=network).measure(Nfm.model_validate(HERE))
    torch.testing.assert_close(measured.layers[0].covariance.dense(), 2 * single.layers[0].covariance.dense())
    assert mimetic.harvest(network, statistic="doubled").digest == measured.digest


def test_networks_of_unknown_data_cannot_be_planned_from() -> None:
    """Model and data must be known."""
    with pytest.raises(UserError) as raised:
        TrainedSource(name="stage here").available(Nfm.model_validate(HERE))
    assert raised.value.code == "MIM-S004"
