"""Maps of √(pᵀΣp): the quadratic form of every patch, whatever the stride, and nothing moved."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mimetic.covariance.ansatz import LayerAnsatz, ansatz_sites, measure_ansatz
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.pictures import mappable, saliency_maps
from mimetic.graph.sites import find_sites

IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    """Return a network with a strided, a grouped and a pointwise convolution."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, (3, 1), padding="same"),
        nn.Conv2d(5, 5, 3, groups=5),
        nn.Conv2d(5, 3, 1),
        nn.Flatten(),
    ).double()


def measured(model: nn.Module) -> tuple[LayerAnsatz, ...]:
    """Return its layers."""
    graph = find_sites(model, IMAGES)
    return measure_ansatz(TrainedNetwork("a net", graph, model, IMAGES), Task(ansatz_sites(graph)))


def test_maps_are_quadratic_forms_of_patches(model: nn.Module) -> None:
    """Of the patches of the layer's own input, with its stride and zeros around."""
    layers = [layer for layer in measured(model) if mappable(layer)]
    assert [layer.site.layer for layer in layers] == ["0", "2"]
    maps = saliency_maps(model.train(), layers, IMAGES)
    patches_NDM = functional.unfold(IMAGES, 3, padding=1, stride=2)
    for cov, found in zip((layers[0].features, layers[0].gradients), maps["0"], strict=True):
        form_NM = torch.einsum("ndm,de,nem->nm", patches_NDM, cov.dense(), patches_NDM)
        torch.testing.assert_close(form_NM.sqrt().view(3, 3, 3), found)
    assert [tuple(found.shape) for found in maps["2"]] == [(3, 3, 3)] * 2
    assert model.training


def test_the_map_of_the_nfm_is_the_norm_of_what_the_filters_answer(model: nn.Module) -> None:
    """‖W·p‖, without the bias."""
    (layer, *_) = measured(model)
    (found, _) = saliency_maps(model, [layer], IMAGES)["0"]
    first = model[0]
    answers = functional.conv2d(IMAGES, first.weight.detach(), stride=2, padding=1)
    torch.testing.assert_close(answers.norm(dim=1), found)
