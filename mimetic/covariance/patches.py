"""Second moment of the data's own patches, and its inverse for whitening first layers.

Shapes: N images, C channels, M patches, D = C·kernel coordinates in torch's order.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mimetic.covariance import config
from mimetic.covariance.covariance import Covariance, PatchGeometry, derived, measured
from mimetic.covariance.harvest import described
from mimetic.covariance.linalg import eigh, multiply, symmetric_root
from mimetic.covariance.measure import Task
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.graph.site import Site
from mimetic.threads import one_thread


def patch_covariance(
    batches_NCHW: Iterable[Tensor],
    kernel_size: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    source: str = "patches",
) -> Covariance:
    """Return the second moment of all patches of images, streamed batch by batch.

    Args:
        batches_NCHW: Images in floating point, normalized as the network will see them.
        kernel_size: Sides of the patches.
        stride: Distance between patches.
        padding: Zeros around the images.
        source: Name of the source for messages.

    Raises:
        UserError: If there is no data, or it has values that are not finite.
    """
    total_DD, count, channels = torch.zeros(0), 0, 0
    for batch_NCHW in batches_NCHW:
        patches_MD = _patches(batch_NCHW, kernel_size, stride, padding)
        if count == 0:
            channels, size = batch_NCHW.shape[1], patches_MD.shape[1]
            total_DD = torch.zeros(size, size, dtype=torch.float64)
        with one_thread():
            total_DD += (patches_MD.T @ patches_MD).double().cpu()
        count += len(patches_MD)
    if count == 0:
        raise UserError(
            f"{source}: there are no images, or they are smaller than {kernel_size}; give at least one",
            code="MIM-V042",
        )
    # Patches are not centered: it is a second moment.
    second_DD = total_DD / count
    if not bool(torch.isfinite(second_DD).all()):
        raise UserError(
            f"{source}: the images have NaN or infinite values; check the data and its normalization",
            code="MIM-V043",
        )
    root_DD, _ = symmetric_root(second_DD)
    return measured(root_DD, PatchGeometry(channels, kernel_size), source=source, samples=count)


def whitened(cov: Covariance, epsilon: float) -> Covariance:
    """Return (Σ + ε·I)⁻¹: filters drawn from it answer patches of covariance Σ with white outputs."""
    values_D, vectors_DD = eigh(multiply(cov.factor_RD.T, cov.factor_RD))
    root_DD = multiply(vectors_DD * (values_D.clamp(min=0.0) + epsilon).rsqrt(), vectors_DD.T)
    return derived(cov, root_DD, cov.patch, note=f"whitening, eigenvalues + {epsilon:g} inverted")


def _patches(batch_NCHW: Tensor, kernel_size: tuple[int, int], stride: int, padding: int) -> Tensor:
    """Return all patches of a batch as rows (M, D)."""
    height, width = (side + 2 * padding for side in batch_NCHW.shape[2:])
    if height < kernel_size[0] or width < kernel_size[1]:
        raise UserError(
            f"images of {height}×{width} pixels have no patches of {kernel_size[0]}×{kernel_size[1]}; "
            "choose a smaller kernel, or larger images",
            code="MIM-V044",
        )
    unfolded_NDM = nn.functional.unfold(batch_NCHW, kernel_size, padding=padding, stride=stride)
    return unfolded_NDM.transpose(1, 2).flatten(0, 1)


def measure_patches(spec: config.Patches, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the covariance of the images' patches at the first layer, or its inverse.

    Raises:
        UserError: If images are missing or have other channels, or the layer's patches are irregular.
    """
    first = task.sites[0]
    assert first.geometry is not None
    images = network.first_images(spec.images, statistic="patches", first=first)
    if images.shape[1] != first.geometry.in_channels:
        raise UserError(
            f"{network.origin}: `{first.layer}` ({described(first.kind, first.geometry)}) takes "
            f"{first.geometry.in_channels} channels and the images have {images.shape[1]}; "
            "give the images the network is trained on",
            code="MIM-V040",
        )
    rows, columns = first.geometry.kernel_size
    cov = patch_covariance(
        network.batches(images, torch.device("cpu")),
        (rows, columns),
        stride=_equal_sides(first.geometry.stride, first, "stride"),
        padding=_padding(network.modules[first.layer], first),
        source=f"patches of {first.layer} of {network.origin}",
    )
    task.report(len(images), len(images))
    return {first.layer: whitened(cov, spec.epsilon) if spec.whiten else cov}


def _equal_sides(values: object, site: Site, what: str) -> int:
    """Return the one value of all sides."""
    sides = set(values) if isinstance(values, tuple) else {values}
    if len(sides) == 1 and isinstance(side := sides.pop(), int):
        return side
    raise UserError(
        f"{site.layer} ({described(site.kind, site.geometry)}): patches need one {what} for all sides, "
        f"this layer has {values}; use `filters`, `nfm` or `agop` here",
        code="MIM-V041",
    )


def _padding(module: nn.Module, site: Site) -> int:
    """Return the zeros a layer puts around its images."""
    padding: object = module.padding
    if padding == "valid":
        return 0
    if padding == "same":
        padding = tuple((side - 1) / 2 for side in module.kernel_size)  # type: ignore[union-attr]
        padding = tuple(int(side) if side == int(side) else side for side in padding)
    return _equal_sides(padding, site, "padding")
