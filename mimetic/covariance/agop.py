"""Average gradient outer product over patches, AGOP = WᵀSW, in factor form (arXiv 2309.00570).

S comes from `gradients`; the factor is S^½·W, whose rows are as many as the layer has filters. The ansatz
is NFM ∝ AGOP in arXiv 2309.00570 and NFM ∝ AGOP^½ in the *Science* version (arXiv 2212.13881) and the NFM
study: `power` 1 or ½.
"""

import torch
from torch import Tensor

from mimetic.covariance.algebra import powered
from mimetic.covariance.config import Agop
from mimetic.covariance.covariance import Covariance, measured
from mimetic.covariance.gradients import Cotangents, Gram, gradient_grams
from mimetic.covariance.linalg import multiply, symmetric_root
from mimetic.covariance.measure import Task, refine
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.weights import patch_of


def agop(weight_OIK: Tensor, gram: Gram, *, power: float = 1.0, source: str = "agop") -> Covariance:
    """Return the patch-AGOP of a layer, to a power; of a grouped convolution, the sum over the groups.

    Args:
        weight_OIK: Filters (outputs, inputs of a group, *kernel); a matrix for linear layers.
        gram: The layer's Gram matrix of pre-activation gradients.
        power: 1, or ½ for the square root.
        source: Name of the source for messages.
    """
    factor_OD = rooted(weight_OIK, gram_roots(gram))
    notes = () if gram.probes is None else (f"{gram.probes} random probes per image",)
    found = measured(factor_OD, patch_of(weight_OIK), source=source, samples=gram.images, notes=notes)
    return found if power == 1.0 else powered(found, power)


def gram_roots(gram: Gram) -> Tensor:
    """Return S^½ of each group, (G, O, O)."""
    return torch.stack([symmetric_root(gram_OO)[0] for gram_OO in gram.gram_GOO])


def rooted(weight_OIK: Tensor, roots_GOO: Tensor) -> Tensor:
    """Return S^½·W as (outputs, patch coordinates), the factor of WᵀSW."""
    parts = weight_OIK.detach().double().cpu().flatten(1).chunk(len(roots_GOO))
    return torch.cat([multiply(root_OO, part) for root_OO, part in zip(roots_GOO, parts, strict=True)])


def measure_agop(spec: Agop, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the patch-AGOP of each layer that a forward calls.

    Raises:
        UserError: If weights or gradients are not finite, or images are missing or do not fit.
    """
    images = network.first_images(spec.images, statistic="agop", first=task.sites[0])
    for site in task.sites:
        network.weight(site)  # finds NaN before the slow pass through the data
    executed = network.executed(task.sites, images[:1])
    grams = gradient_grams(
        network.inner,
        list(executed),
        network.batches(images, network.device),
        Cotangents(outputs=spec.outputs, probes=spec.probes, seed=task.seed),
        drop_bias=spec.drop_bias,
        progress=lambda done: task.report(done, len(images)),
    )
    found: dict[str, Covariance] = {}
    for name, site in executed.items():
        source = f"agop of {site.layer} of {network.origin}"
        cov = agop(network.weight(site), grams.pop(name), power=spec.power, source=source)
        found[site.layer] = refine(cov, spec)
    return found
