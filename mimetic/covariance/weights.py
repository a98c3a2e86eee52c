"""Second moments of a layer's filters: over their pixels, and over channels and pixels together.

* `filters` (arXiv 2210.03651): every k×k slice of the weight is one sample; for a depthwise layer those are
  its filters. New filters are drawn around zero whatever the mean was.
* `nfm`, the neural feature matrix WᵀW of whole filters, uncentered (Beaglehole, Radhakrishnan, Pandit and
  Belkin, arXiv 2309.00570). The factor is the weight itself, so drawing from it is ε·W and costs nothing (the
  study's route through a d×d eigendecomposition takes minutes).

Shapes: H spatial filters, O filters, D = channels·kernel coordinates in torch's order (channel, row, column).
"""

import math
from typing import Literal

from torch import Tensor

from mimetic.covariance.config import Filters, Nfm
from mimetic.covariance.covariance import Covariance, PatchGeometry, measured
from mimetic.covariance.measure import Task, refine
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.threads import one_thread

Normalize = Literal["sum", "mean"]


@one_thread()
def filter_covariance(weight_OIK: Tensor, *, centered: bool = True, source: str = "filters") -> Covariance:
    """Return Σ = Σ_h (f_h − μ)(f_h − μ)ᵀ / (H − 1) over all H = O·I spatial filters of a layer.

    Args:
        weight_OIK: Filters (outputs, inputs of a group, *kernel).
        centered: Subtract the mean filter μ; else μ = 0 and the divisor is H.
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
    if count <= int(centered):
        raise UserError(
            f"{source}: {count} filter is too few for a covariance; choose a wider layer",
            code="MIM-V152",
        )
    if centered:
        samples_HD = samples_HD - samples_HD.mean(dim=0)
    factor_RD = samples_HD / math.sqrt(count - int(centered))
    return measured(factor_RD, PatchGeometry(1, kernel), source=source, samples=count)


def nfm(weight_OIK: Tensor, *, normalize: Normalize = "sum", source: str = "nfm") -> Covariance:
    """Return Wᵀ·W over a layer's filters, or its mean over filters; of a grouped layer, over all groups.

    Args:
        weight_OIK: Filters (outputs, inputs of a group, *kernel); a matrix for linear layers.
        normalize: `sum` (arXiv 2309.00570) or `mean` over filters (its hyper-parameter study, rainbow).
        source: Name of the source for messages.

    Raises:
        UserError: If values are not finite.
    """
    factor_OD = weight_OIK.detach().double().cpu().flatten(1)
    if normalize == "mean":
        factor_OD = factor_OD / math.sqrt(len(factor_OD))
    return measured(factor_OD, patch_of(weight_OIK), source=source, samples=len(weight_OIK))


def patch_of(weight_OIK: Tensor) -> PatchGeometry:
    """Return the patch that the filters of a weight see."""
    return PatchGeometry(weight_OIK.shape[1], tuple(weight_OIK.shape[2:]))


def measure_filters(spec: Filters, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the spatial covariance of the filters of each layer, or of their change in training."""
    found: dict[str, Covariance] = {}
    for site in task.sites:
        weight_OIK = network.weight_or_change(site, change=spec.needs_initial)
        source = f"filters of {site.layer} of {network.origin}"
        cov = filter_covariance(weight_OIK, centered=spec.centered, source=source)
        samples_HD = weight_OIK.flatten(2).flatten(0, 1)
        if spec.centered:
            samples_HD = samples_HD - samples_HD.mean(dim=0)
            cov = cov.noted("mean filter taken out")
        found[site.layer] = refine(cov, spec, samples_HD)
        task.report(len(found), len(task.sites))
    return found


def measure_nfm(spec: Nfm, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the NFM of each layer, or that of its change in training."""
    found: dict[str, Covariance] = {}
    for site in task.sites:
        weight_OIK = network.weight_or_change(site, change=spec.needs_initial)
        cov = nfm(weight_OIK, normalize=spec.normalize, source=f"nfm of {site.layer} of {network.origin}")
        found[site.layer] = refine(cov, spec, weight_OIK.flatten(1))
        task.report(len(found), len(task.sites))
    return found
