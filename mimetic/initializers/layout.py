"""Stored weights and the filters they hold: the reading (outputs, inputs of a group, *kernel).

Linear and convolution weights are stored as filters. GPT-2's Conv1D stores (inputs, outputs); transposed
convolutions store (inputs, outputs of a group, *kernel).
"""

from torch import Tensor

from mimetic.graph.site import Geometry, Site


def filter_shape(geometry: Geometry) -> tuple[int, ...]:
    """Return the shape (O, I, *kernel) of a layer's filters."""
    return (geometry.out_channels, geometry.patch_channels, *geometry.kernel_size)


def stored_shape(geometry: Geometry) -> tuple[int, ...]:
    """Return the shape in which the layer stores its filters."""
    if not geometry.transposed:
        return filter_shape(geometry)
    return (geometry.in_channels, geometry.out_channels // geometry.groups, *geometry.kernel_size)


def stored(filters_OIK: Tensor, geometry: Geometry) -> Tensor:
    """Return filters in the layout the layer stores, contiguous."""
    if not geometry.transposed:
        return filters_OIK.contiguous()
    groups, kernel = geometry.groups, geometry.kernel_size
    grouped_GOIK = filters_OIK.reshape(groups, -1, geometry.patch_channels, *kernel)
    return grouped_GOIK.transpose(1, 2).reshape(stored_shape(geometry)).contiguous()


def flipped(site: Site, shape: tuple[int, ...]) -> bool:
    """Tell whether a parameter is a linear layer's matrix stored input first, as GPT-2's Conv1D does."""
    geometry = site.geometry
    return (
        geometry is not None
        and geometry.transposed
        and not geometry.kernel_size
        and shape == stored_shape(geometry)
        and len(shape) > 1
    )
