"""Guessed inputs: their shapes, likeliest first."""

import pytest
import torch
from torch import nn

from mimetic.graph.example import guesses
from mimetic.graph.names import walk


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of all guesses."""
    return [tuple(inputs[0].shape) for inputs in guesses(list(walk(model)))]


@pytest.mark.parametrize(
    ("expected", "layer"),
    [
        ([(2, 3, 224, 224), (2, 3, 32, 32), (2, 3, 64, 64), (2, 3, 28, 28)], nn.Conv2d(3, 8, 3)),
        ([(2, 5, 224), (2, 5, 1024), (2, 5, 64), (2, 5, 16)], nn.Conv1d(5, 8, 3)),
        ([(2, 3, 16, 112, 112), (2, 3, 8, 32, 32), (2, 3, 32, 32, 32)], nn.Conv3d(3, 8, 3)),
        ([(2, 1, 224, 224)], nn.ConvTranspose2d(1, 8, 3)),
        ([(2, 7), (2, 16, 7)], nn.Linear(7, 2)),
        ([(2, 16)], nn.Embedding(7, 2)),
        ([(2, 16, 7)], nn.LSTM(7, 2)),
        ([], nn.LayerNorm(7)),
    ],
)
def test_the_first_layer_tells_the_input(expected: list[tuple[int, ...]], layer: nn.Module) -> None:
    """Channels and features are the layer's, the batch is 2."""
    assert expected == shapes(nn.Sequential(layer, nn.ReLU()))[: len(expected)]
    assert bool(expected) == bool(shapes(layer))


def test_declared_sizes_come_first() -> None:
    """Of timm's configuration, then of attributes on the way to the first convolution."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3))
    model.pretrained_cfg = {"input_size": (3, 48, 40)}
    model.image_size = 20
    assert shapes(model)[:3] == [(2, 1, 48, 40), (2, 1, 20, 20), (2, 1, 224, 224)]


def test_every_kind_of_first_layer_is_tried() -> None:
    """In order of registration, each once."""
    model = nn.Sequential(nn.Linear(7, 2), nn.Embedding(3, 4), nn.Linear(9, 2))
    assert shapes(model) == [(2, 7), (2, 16, 7), (2, 16)]


def test_dtypes_are_those_of_the_layer() -> None:
    """Token ids are whole numbers."""
    model = nn.Sequential(nn.Linear(7, 2, dtype=torch.float64), nn.Embedding(3, 4))
    assert [torch.float64, torch.float64, torch.int64] == [x.dtype for (x,) in guesses(list(walk(model)))]
