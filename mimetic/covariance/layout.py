"""Stored weights and the filters in them: the reading (outputs, inputs of a group, *kernel).

Linear and convolution weights are stored as filters. GPT-2's Conv1D stores (inputs, outputs); transposed
convolutions store (inputs, outputs of a group, *kernel).
"""

from torch import Tensor

from mimetic.errors import UserError
from mimetic.graph.site import Geometry


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


def filters_of(weight: Tensor, geometry: Geometry, *, name: str = "a weight") -> Tensor:
    """Return the filters (O, I, *kernel) of a stored weight, contiguous; the inverse of `stored`.

    Raises:
        UserError: If the weight has not the shape in which such a layer stores its filters, or is not real.
    """
    if not weight.is_floating_point():
        raise UserError(
            f"{name}: its entries are {str(weight.dtype).removeprefix('torch.')}, and a covariance is one of "
            "real filters; choose other layers",
            code="MIM-V182",
        )
    if tuple(weight.shape) != stored_shape(geometry):
        raise UserError(
            f"a weight of shape {tuple(weight.shape)} does not fit {geometry}; "
            "give the weight and geometry of the same layer",
            code="MIM-V181",
        )
    if not geometry.transposed:
        return weight.contiguous()
    groups, kernel = geometry.groups, geometry.kernel_size
    grouped_GIOK = weight.reshape(groups, geometry.patch_channels, -1, *kernel)
    return grouped_GIOK.transpose(1, 2).reshape(filter_shape(geometry)).contiguous()
