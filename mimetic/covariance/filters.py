"""Empirical spatial covariance of a layer's filters (arXiv 2210.03651).

Every k×k slice of the weight is one sample; for a depthwise layer those are its filters. One covariance
per layer; biases are not touched; new filters are drawn around zero whatever the mean was.
"""

import math
from typing import Literal

from torch import Tensor

from mimetic.covariance.config import Filters
from mimetic.covariance.covariance import Covariance, PatchGeometry, measured
from mimetic.covariance.measure import Task, refine
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.shrinkage import Target, intensity, shrunk
from mimetic.errors import UserError
from mimetic.threads import one_thread


@one_thread()
def filter_covariance(
    weight_OIK: Tensor,
    *,
    centered: bool = True,
    ddof: int = 1,
    shrinkage: float | Literal["auto"] | None = None,
    target: Target = "identity",
    source: str = "filters",
) -> Covariance:
    """Return Σ = Σ_h (f_h − μ)(f_h − μ)ᵀ / (H − ddof) over all H = O·I spatial filters of a layer.

    Args:
        weight_OIK: Filters (outputs, inputs of a group, *kernel).
        centered: Whether the mean filter μ is taken out; else μ = 0.
        ddof: Taken from H in the divisor: 1 as `numpy.cov`, or 0.
        shrinkage: Intensity in [0, 1], `auto` to estimate it, or None.
        target: What shrinkage pulls toward.
        source: Name of the source for messages, e.g. the layer and the checkpoint.

    Raises:
        UserError: If there is no kernel, too few filters, or values that are not finite.
    """
    kernel = tuple(weight_OIK.shape[2:])
    if math.prod(kernel) <= 1:
        raise UserError(
            f"{source}: a weight of shape {tuple(weight_OIK.shape)} has no spatial filters; "
            "choose convolutions with a kernel above 1×1, or the source `nfm`",
            code="MIM-V151",
        )
    samples_HD = weight_OIK.detach().double().cpu().flatten(2).flatten(0, 1)
    count = len(samples_HD)
    if count <= ddof or (centered and count < 2):  # noqa: PLR2004
        raise UserError(
            f"{source}: {count} filter is too few for a covariance; choose a wider layer",
            code="MIM-V152",
        )
    if centered:
        samples_HD = samples_HD - samples_HD.mean(dim=0)
    factor_RD = samples_HD / math.sqrt(count - ddof)
    found = measured(factor_RD, PatchGeometry(1, kernel), source=source, samples=count)
    if shrinkage is None:
        return found
    alpha = intensity(samples_HD, target=target) if shrinkage == "auto" else shrinkage
    return shrunk(found, alpha, target=target)


def measure_filters(spec: Filters, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the spatial covariance of the filters of each layer, or of their change in training."""
    found: dict[str, Covariance] = {}
    for site in task.sites:
        weight_OIK = network.weight_or_change(site, change=spec.needs_initial)
        source = f"filters of {site.layer} of {network.origin}"
        ddof = 1 if spec.centered else 0
        cov = filter_covariance(weight_OIK, centered=spec.centered, ddof=ddof, source=source)
        samples_HD = weight_OIK.flatten(2).flatten(0, 1)
        if spec.centered:
            samples_HD = samples_HD - samples_HD.mean(dim=0)
            cov = cov.noted("mean filter taken out")
        found[site.layer] = refine(cov, spec, samples_HD)
        task.report(len(found), len(task.sites))
    return found
