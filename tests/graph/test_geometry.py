"""Kinds and geometries of single layers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.site import Geometry


class Conv1D(nn.Module):
    """GPT-2's linear layer, as transformers has it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.zeros(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))


class LlamaRMSNorm(nn.Module):
    """A norm known only by its name and its one vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = 1e-6


class Declared(nn.Module):
    """A norm of another name that declares its features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.weight = nn.Parameter(torch.ones(width))


class LayerScale(nn.Module):
    """A bare vector that is no norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class OwnLinear(nn.Module):
    """A linear layer that does not descend from torch's."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))


class Packed(nn.Linear):
    """A quantized linear layer: its weight is not stored in the shape it declares."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.weight = nn.Parameter(torch.zeros(8, 1))


def test_conv_has_kernel_stride_and_groups() -> None:
    """A grouped convolution sees the channels of one group."""
    kind, geometry = kind_and_geometry(nn.Conv2d(8, 16, (3, 5), stride=2, groups=4))
    assert ("conv", Geometry(8, 16, (3, 5), (2, 2), 4)) == (kind, geometry)
    assert (geometry.patch_channels, geometry.fan_in) == (2, 30)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("conv", nn.Conv2d(3, 8, 3)),
        ("conv", nn.Conv1d(3, 8, 3)),
        ("conv", nn.Conv3d(3, 8, 3)),
        ("conv", nn.Conv2d(1, 8, 3)),
        ("conv", nn.Conv2d(8, 8, 1, groups=2)),
        ("pointwise_conv", nn.Conv2d(8, 4, 1, stride=2)),
        ("pointwise_conv", nn.Conv1d(8, 4, 1)),
        ("depthwise_conv", nn.Conv2d(8, 8, 3, groups=8)),
        ("depthwise_conv", nn.Conv2d(8, 16, 7, groups=8)),
        ("depthwise_conv", nn.Conv2d(8, 8, 1, groups=8)),
        ("conv_transpose", nn.ConvTranspose2d(8, 4, 2, groups=2)),
        ("conv_transpose", nn.ConvTranspose1d(8, 8, 2, groups=8)),
        ("linear", nn.Linear(3, 4)),
        ("linear", nn.MultiheadAttention(4, 2).out_proj),
        ("linear", Conv1D(6, 2)),
        ("linear", OwnLinear(2, 6)),
        ("norm", nn.BatchNorm1d(4)),
        ("norm", nn.BatchNorm3d(4)),
        ("norm", nn.SyncBatchNorm(4)),
        ("norm", nn.InstanceNorm2d(4, affine=True)),
        ("norm", nn.LayerNorm((4, 4))),
        ("norm", nn.GroupNorm(2, 4)),
        ("norm", nn.RMSNorm(4)),
        ("norm", LlamaRMSNorm(4)),
        ("norm", Declared(4)),
        ("embedding", nn.Embedding(5, 3)),
        ("embedding", nn.EmbeddingBag(5, 3)),
        ("other", LayerScale(4)),
        ("other", nn.MultiheadAttention(4, 2)),
        ("other", nn.LSTM(3, 4)),
        ("other", nn.PReLU(4)),
        ("other", nn.Bilinear(2, 3, 4)),
        ("other", nn.ParameterList([torch.zeros(2)])),
    ],
)
def test_kind(kind: str, layer: nn.Module) -> None:
    """The structure of a layer tells its kind."""
    assert kind == kind_and_geometry(layer)[0]


@pytest.mark.parametrize(
    ("expected", "layer"),
    [
        (Geometry(3, 4), nn.Linear(3, 4)),
        (Geometry(2, 6, transposed=True), Conv1D(6, 2)),
        (Geometry(5, 3, transposed=True), nn.Embedding(5, 3)),
        (Geometry(8, 4, (2,), (1,), 2, transposed=True), nn.ConvTranspose1d(8, 4, 2, groups=2)),
        (None, nn.LayerNorm(4)),
        (None, LayerScale(4)),
        (None, Packed()),
    ],
)
def test_geometry(expected: Geometry | None, layer: nn.Module) -> None:
    """The weight as a linear map, where it is one."""
    assert expected == kind_and_geometry(layer)[1]


def test_a_packed_linear_layer_is_still_linear() -> None:
    """Only the geometry is lost."""
    assert kind_and_geometry(Packed()) == ("linear", None)


def test_numpy_sizes_are_whole_numbers() -> None:
    """A width computed with numpy is a width."""
    assert ("linear", Geometry(3, 4)) == kind_and_geometry(nn.Linear(np.int64(3), np.int64(4)))


def test_a_parametrized_layer_keeps_its_geometry() -> None:
    """The computed weight has the declared shape; the stored tensors belong to the parametrization."""
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    assert ("conv", Geometry(3, 8, (3, 3), (1, 1))) == kind_and_geometry(layer)
    assert kind_and_geometry(layer.parametrizations.weight) == ("other", None)


@given(
    groups=st.integers(1, 4),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    kernel=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    transposed=st.booleans(),
)
def test_geometry_agrees_with_the_weight(
    groups: int, inputs: int, outputs: int, kernel: list[int], *, transposed: bool
) -> None:
    """Filters times their dimension is the number of weights, and sizes are where they are stored."""
    name = f"Conv{'Transpose' if transposed else ''}{len(kernel)}d"
    layer = getattr(nn, name)(groups * inputs, groups * outputs, tuple(kernel), groups=groups, device="meta")
    _, geometry = kind_and_geometry(layer)
    stored = (groups * inputs, outputs) if transposed else (groups * outputs, inputs)
    assert (*stored, *kernel) == tuple(layer.weight.shape)
    assert layer.weight.numel() == geometry.out_channels * geometry.fan_in
    assert (inputs, tuple(kernel)) == (geometry.patch_channels, geometry.kernel_size)
