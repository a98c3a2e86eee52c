"""The ansatz of feature learning, NFM ∝ AGOP, measured layer by layer (arXiv 2309.00570).

What training makes of a layer's filters, WᵀW, is compared with what its outputs depend on, WᵀSW, by the
Pearson correlation over all d² entries; none of these matrices is formed. The *Science* version
(arXiv 2212.13881) compares with the square root of the AGOP. The centered variants compare ΔWᵀΔW with
ΔWᵀSΔW, ΔW = W − W₀, which leaves out what initialization put there ("Feature learning as alignment").
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from mimetic.ambient import fixed_settings
from mimetic.covariance.agop import gram_roots, rooted
from mimetic.covariance.algebra import correlation, cosine, effective_rank, eigenvectors
from mimetic.covariance.capture import run_forward
from mimetic.covariance.covariance import Covariance, Provenance
from mimetic.covariance.gradients import Cotangents, Gram, gradient_grams
from mimetic.covariance.measure import KINDS, Task, gradients_known
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.weights import patch_of
from mimetic.graph.site import Graph, Site

EXACT_OUTPUTS = 100
"""Most outputs that are sent back one by one unless a number of probes is given."""

PROBES = 4
"""Random combinations per image of more outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far one layer's NFM and AGOP agree. Correlations are Pearson's over all entries.

    Attributes:
        rho: Of NFM and AGOP.
        rho_half: Of NFM and AGOP^½.
        alignment: Uncentered cosine of NFM and AGOP.
        rank_nfm: Effective rank Σ k·λ_k / Σ λ_k of the NFM.
        rank_agop: That of the AGOP.
        rho_init: Of NFM₀ and NFM; None where the weights at the start are not known.
        rho_change: Of ΔWᵀΔW and ΔWᵀSΔW; None also where nothing has changed.
        alignment_change: Their cosine.
    """

    rho: float
    rho_half: float
    alignment: float
    rank_nfm: float
    rank_agop: float
    rho_init: float | None = None
    rho_change: float | None = None
    alignment_change: float | None = None


MEASURES = tuple(field.name for field in fields(Agreement))
"""Names of what is measured of a layer; part of the names of metrics."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerAnsatz:
    """What was measured at one layer.

    Attributes:
        site: The layer.
        agreement: The numbers.
        features: Its NFM.
        gradients: Its AGOP, summed over images, positions and outputs.
    """

    site: Site
    agreement: Agreement
    features: Covariance
    gradients: Covariance


def ansatz_sites(graph: Graph, wanted: Callable[[Site], bool] | None = None) -> tuple[Site, ...]:
    """Return the layers at which the ansatz is a statement, in execution order.

    Left out are layers whose patch is a single number, and the network's last layer where it is linear:
    its pre-activations are the outputs, so S is a multiple of the identity and ρ = 1 whatever it learned.

    Args:
        graph: Sites of a network.
        wanted: Which of them; all unless given.
    """
    filters = [site for site in graph.sites if site.kind in KINDS and site.geometry is not None]
    if filters and filters[-1].kind == "linear":
        filters.pop()
    known = (site for site in filters if gradients_known(site) and _fan_in(site) > 1)
    return tuple(site for site in known if wanted is None or wanted(site))


@dataclass(frozen=True, slots=True)
class AnsatzOptions:
    """How the ansatz is measured.

    Attributes:
        images: The first so many images are used, or all of fewer.
        probes: Random combinations of outputs per image; unless given, every output of up to
            `EXACT_OUTPUTS`, and `PROBES` combinations of more. `exact` takes every output of any number.
        drop_bias: Leave out each layer's own bias, as the published scripts do.
    """

    images: int = 256
    probes: int | Literal["exact"] | None = None
    drop_bias: bool = False


@fixed_settings()
def measure_ansatz(
    network: TrainedNetwork, task: Task, options: AnsatzOptions | None = None
) -> tuple[LayerAnsatz, ...]:
    """Return the agreement of NFM and AGOP at each of some layers.

    Args:
        network: The network, its images and, for the variants that need them, its initial weights. Its
            weights, gradients, statistics and modes are unchanged.
        task: At least one of `ansatz_sites`; those one forward does not call are left out.
        options: How it is measured.

    Raises:
        UserError: If weights are not finite, or images are missing or do not fit.
    """
    options = AnsatzOptions() if options is None else options
    images_NCHW = network.first_images(options.images, statistic="ansatz", first=task.sites[0])
    # Weights that are not finite are found before the slow pass through the data.
    weights = {site.layer: network.weight(site) for site in task.sites}
    executed = network.executed(task.sites, images_NCHW[:1])
    # Every output is sent back, or a few combinations of many.
    probes = None if options.probes == "exact" else options.probes
    if options.probes is None and _outputs(network, images_NCHW[:1]) > EXACT_OUTPUTS:
        probes = PROBES
    grams = gradient_grams(
        network.inner,
        list(executed),
        network.batches(images_NCHW, network.device),
        Cotangents(probes=probes, seed=task.seed),
        drop_bias=options.drop_bias,
        progress=lambda done: task.report(done, len(images_NCHW)),
    )
    return tuple(
        _layer(
            site,
            weights[site.layer],
            grams.pop(name),
            None if network.initial is None else network.initial_weight(site),
        )
        for name, site in executed.items()
    )


def metrics(layers: Iterable[LayerAnsatz]) -> dict[str, float]:
    """Return the numbers under flat names, `ansatz/<layer>/rho`, and `ansatz/rho`, the mean over layers."""
    found: dict[str, float] = {}
    rhos = []
    for layer in layers:
        rhos.append(layer.agreement.rho)
        for name in MEASURES:
            value = getattr(layer.agreement, name)
            if value is not None:
                found[f"ansatz/{layer.site.layer}/{name}"] = value
    return {"ansatz/rho": sum(rhos) / len(rhos), **found} if rhos else {}


def _layer(site: Site, weight_OIK: Tensor, gram: Gram, initial_OIK: Tensor | None) -> LayerAnsatz:
    """Compare the two matrices of a layer, with one eigendecomposition of S, of the NFM and of the AGOP."""

    def second_moment(factor_OD: Tensor, name: str) -> Covariance:
        return Covariance(factor_OD, patch_of(weight_OIK), Provenance(f"{name} of {site.layer}"))

    # S is decomposed once per group: its root gives the factor of WᵀSW for any W.
    roots_GOO = gram_roots(gram)
    features = second_moment(weight_OIK.flatten(1), "nfm")
    gradients = second_moment(rooted(weight_OIK, roots_GOO), "agop")
    values_K, vectors_KD = eigenvectors(gradients)
    # What training changed, without the part that initialization put there.
    before = rho_change = alignment_change = None
    if initial_OIK is not None:
        before = correlation(second_moment(initial_OIK.flatten(1), "initial nfm"), features)
        if not torch.equal(weight_OIK, initial_OIK):
            change_OIK = weight_OIK - initial_OIK
            change = second_moment(change_OIK.flatten(1), "change")
            agop = second_moment(rooted(change_OIK, roots_GOO), "gradients of the change")
            rho_change, alignment_change = correlation(change, agop), cosine(change, agop)
    # The factor of AGOP^½ has the rows λ^¼·v.
    half = second_moment(values_K.pow(0.25)[:, None] * vectors_KD, "agop^½") if len(values_K) else gradients
    numbers = Agreement(
        rho=correlation(features, gradients),
        rho_half=correlation(features, half),
        alignment=cosine(features, gradients),
        rank_nfm=_rank(features.eigenvalues()),
        rank_agop=_rank(values_K),
        rho_init=before,
        rho_change=rho_change,
        alignment_change=alignment_change,
    )
    return LayerAnsatz(site, numbers, features, gradients)


def _rank(values_K: Tensor) -> float:
    return effective_rank(values_K) if bool((values_K > 0.0).any()) else 0.0


def _fan_in(site: Site) -> int:
    return 0 if site.geometry is None else site.geometry.fan_in


def _outputs(network: TrainedNetwork, image_1CHW: Tensor) -> int:
    """Return how many numbers the network returns for an image."""
    found = run_forward(network.inner, image_1CHW.to(network.device), origin=network.origin)
    return found.numel() if isinstance(found, Tensor) else 0
