"""Measure a trained network: one covariance for each of its layers, of the statistic a section names.

`filters` and `nfm` read the weights (arXiv 2210.03651, 2309.00570), `agop` takes gradients at images, and
`patches` uses the images alone. A statistic is the function behind a section's `measure`:

    f(spec, network: TrainedNetwork, task: Task) -> Mapping[str, Covariance]

It returns a covariance by layer name for each of the task's sites that it can measure, shrunk and truncated
by `refine`. The sites are chosen here, by the function behind `layers`: f(spec, sites) -> Sequence[Site].
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mimetic.ambient import fixed_settings
from mimetic.config.registry import implementation
from mimetic.config.suggest import listed
from mimetic.covariance.config import CovarianceSource, Measured
from mimetic.covariance.covariance import Covariance
from mimetic.covariance.harvest import Harvest, blank
from mimetic.covariance.layout import stored_shape
from mimetic.covariance.network import Progress, TrainedNetwork
from mimetic.covariance.shrinkage import LARGEST, intensity, refined
from mimetic.errors import UserError
from mimetic.graph.site import Graph, Site

KINDS = ("conv", "depthwise_conv", "pointwise_conv", "linear")
"""Kinds of layers whose weights are filters over patches."""

CHANGE = "of the change since initialization"
"""Note of a statistic of W − W₀, which leaves out the isotropic part that training did not touch."""

_TWO_SIDES = 2
_FORWARD_CLASSES = {"Conv1d", "Conv2d", "Conv3d", "Linear"}
_NEVER_CALLED = "NonDynamicallyQuantizableLinear"
"""Attention's output projection: its weight is used, but the layer is never called."""


@dataclass(frozen=True, slots=True)
class Task:
    """Where and how a statistic is measured.

    Attributes:
        sites: The layers, in execution order; at least one.
        seed: Seed of random probes.
        progress: Called with what is done and the total.
    """

    sites: tuple[Site, ...]
    seed: int = 0
    progress: Progress | None = None

    def report(self, done: int, total: int) -> None:
        """Report progress, where there is a callback."""
        if self.progress is not None:
            self.progress(done, total)


@fixed_settings()
def measure(
    spec: CovarianceSource,
    network: TrainedNetwork,
    *,
    kinds: Collection[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Harvest:
    """Return the covariances of a trained network's layers.

    Args:
        spec: A section that is measured, e.g. `agop`; its `from` is ignored.
        network: The network and the images it is measured on; unchanged.
        kinds: Kinds of layers to measure; all unless given.
        seed: Seed of random probes.
        progress: Called with what is done and the total: layers, or images where they are needed.

    Raises:
        UserError: If no layer can be measured, weights are not finite, images are missing or do not fit.
    """
    sites = measurable_layers(spec, network.graph, network.origin, kinds=kinds)
    found = implementation(spec, "measure")(spec, network, Task(sites, seed, progress))
    layers = tuple(replace(blank(s), covariance=found[s.layer]) for s in sites if s.layer in found)
    return Harvest(network.origin, spec.type_name(), layers, spatial=spec.spatial)


def planned_harvest(
    spec: CovarianceSource, graph: Graph, origin: str, *, kinds: Collection[str] | None = None
) -> Harvest:
    """Return what `measure` will give once the network is trained: layers and geometries, no covariances.

    Raises:
        UserError: If the network has no layer where the statistic can be measured.
    """
    sites = measurable_layers(spec, graph, origin, kinds=kinds)
    return Harvest(origin, spec.type_name(), tuple(blank(site) for site in sites), spatial=spec.spatial)


def measurable_layers(
    spec: CovarianceSource, graph: Graph, origin: str, *, kinds: Collection[str] | None = None
) -> tuple[Site, ...]:
    """Return the sites where a statistic can be measured, in execution order.

    Raises:
        UserError: If there is none.
    """
    own_kind = getattr(spec, "kind", None)
    if kinds is None and own_kind is not None:
        kinds = (own_kind,)
    candidates = [site for site in graph.sites if site.kind in (KINDS if kinds is None else kinds)]
    found = tuple(implementation(spec, "layers")(spec, candidates))
    if found:
        return found
    present = listed(sorted({site.kind for site in graph.sites}))
    wanted = "" if kinds is None else f" of kind {listed(kinds)}"
    raise UserError(
        f"{origin}: no layer{wanted} has a `{spec.type_name()}` (its layers: {present}); "
        "choose another network or statistic",
        code="MIM-V020",
    )


def filter_layers(_spec: CovarianceSource, sites: Sequence[Site]) -> list[Site]:
    """Return the sites whose weight is stored as filters over patches."""
    return [site for site in sites if _has_filters(site)]


def spatial_layers(_spec: CovarianceSource, sites: Sequence[Site]) -> list[Site]:
    """Return the sites whose filters have more than one pixel."""
    return [
        site
        for site in filter_layers(_spec, sites)
        if site.geometry is not None and max(site.geometry.kernel_size, default=1) > 1
    ]


def gradient_layers(_spec: CovarianceSource, sites: Sequence[Site]) -> list[Site]:
    """Return the sites where gradients can be taken."""
    return [site for site in sites if _has_filters(site) and gradients_known(site)]


def first_convolution(_spec: CovarianceSource, sites: Sequence[Site]) -> list[Site]:
    """Return the first executed two-dimensional dense convolution with more than one pixel."""
    return [
        site
        for site in spatial_layers(_spec, sites)
        if site.calls != 0
        and site.geometry is not None
        and site.geometry.groups == 1
        and len(site.geometry.kernel_size) == _TWO_SIDES
    ][:1]


def gradients_known(site: Site) -> bool:
    """Return whether gradients can be taken at a site: a convolution or linear layer that a forward calls."""
    return (
        site.calls != 0
        and bool(_FORWARD_CLASSES.intersection(site.classes))
        and _NEVER_CALLED not in site.classes
    )


def refine(cov: Covariance, spec: Measured, samples_HD: Tensor | None = None) -> Covariance:
    """Return a measured covariance with the section's `shrink` and `rank` applied.

    Args:
        cov: As measured.
        spec: The section.
        samples_HD: The samples it was estimated from, for `shrink: auto`; None where there are none.

    Raises:
        UserError: If it is too large to shrink, or `auto` has no samples.
    """
    source, alpha = cov.provenance.source, spec.shrink
    if alpha != 0.0 and cov.patch.size > LARGEST:
        raise UserError(
            f"covariance `{source}`: `shrink` has full rank over its {cov.patch.size} coordinates (limit "
            f"{LARGEST}); leave `shrink` out, narrow the layers with `kind`, or use `filters`, whose "
            "covariance is spatial",
            code="MIM-V021",
        )
    if alpha == "auto":
        if samples_HD is None:
            raise UserError(
                f"covariance `{source}`: `shrink: auto` is estimated from filters, and `{spec.type_name()}` "
                "has no such samples; give a number",
                code="MIM-V022",
            )
        alpha = intensity(samples_HD)
    found = refined(cov, shrink=alpha, rank=spec.rank)
    return found.noted(CHANGE) if spec.needs_initial else found


def _has_filters(site: Site) -> bool:
    weight = next((p for p in site.parameters if p.local == "weight"), None)
    geometry = site.geometry
    return geometry is not None and weight is not None and weight.shape == stored_shape(geometry)
