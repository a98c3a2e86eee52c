"""Replace a measured covariance by a formula that is fitted to it.

A formula gives a matrix C(p) over the pixels of a kernel for a few positive parameters p. They and a scale s
are fitted by least squares, min ‖Σ − s·C(p)‖_F; the fit explains the share 1 − ‖Σ − s·C‖²_F / ‖Σ‖²_F.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mimetic.config.registry import implementation
from mimetic.covariance.config import ClosedFormFit, Fit, Width
from mimetic.covariance.covariance import Covariance, PatchGeometry, derived
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.linalg import symmetric_root
from mimetic.covariance.transfer import Keep, marginal, restored_trace
from mimetic.errors import UserError
from mimetic.graph.site import shape_text
from mimetic.tables import Table
from mimetic.threads import one_thread

_STARTS = {1: 25, 2: 9}
"""Places along each axis of the grid that is searched first, by the number of parameters."""

_QUADRATIC = 2


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A formula fitted to a covariance.

    Attributes:
        covariance: The formula's, at the fitted scale.
        parameters: Its parameters by name, rounded to four digits.
        scale: Factor s on the formula's matrix.
        explained: Share of the squared entries of the measured matrix that it explains.
    """

    covariance: Covariance
    parameters: Mapping[str, float]
    scale: float
    explained: float


@one_thread()
def fitted(
    spec: Fit, cov: Covariance, *, kernel_size: tuple[int, ...] | None = None, keep: Keep = "nothing"
) -> Fitted:
    """Return a formula fitted to a spatial covariance.

    The best place of a grid is refined by the method of Nelder and Mead, over the parameters' logarithms.

    Args:
        spec: Which formula.
        cov: Of one channel; more channels give their mean.
        kernel_size: Sides of the kernel that the formula is evaluated at; those it is fitted at unless given.
        keep: What a factor restores there of the formula where it was fitted.

    Raises:
        UserError: If the covariance is zero, or over a single pixel.
    """
    cov = marginal(cov)
    kernel = cov.patch.kernel_size
    if math.prod(kernel) == 1 or cov.trace == 0.0:
        what = "is over a single pixel" if math.prod(kernel) == 1 else "is zero"
        raise UserError(
            f"covariance `{cov.provenance.source}` {what}, so `{spec.type_name()}` cannot be fitted to it; "
            "leave `fit` out, or match other layers",
            code="MIM-V125",
        )
    measured_DD = cov.dense()
    parameters = _search(spec, kernel, measured_DD.numpy().tobytes())
    matrix_DD, scale, explained = _scaled(spec, kernel, measured_DD, list(parameters.values()))
    ours = kernel if kernel_size is None else kernel_size
    place, kept, gain = "", "", scale
    if ours != kernel:
        trace = float(matrix_DD.trace())
        matrix_DD, place = implementation(spec)(spec, ours, *parameters.values()), f" at {shape_text(kernel)}"
        if keep != "nothing":
            gain = scale * restored_trace(trace, kernel, ours, keep=keep) / float(matrix_DD.trace())
            kept = f", {keep} kept"
    values = ", ".join(f"{name} {value:g}" for name, value in parameters.items())
    note = f"{spec.type_name()} of {values} fitted{place}, {explained:.0%} explained{kept}"
    root_DD, _ = symmetric_root(matrix_DD * gain)
    covariance = derived(cov, root_DD, PatchGeometry(1, ours), note=note)
    return Fitted(covariance, parameters, scale, explained)


@lru_cache(maxsize=256)
def _search(spec: Fit, kernel: tuple[int, ...], measured: bytes) -> Mapping[str, float]:
    """Return the parameters that explain most of a matrix (d, d) in float64; cached for all trials."""
    from scipy.optimize import minimize  # only where something is fitted: every plan imports this module

    measured_DD = torch.frombuffer(bytearray(measured), dtype=torch.float64).view(math.prod(kernel), -1)

    def missed(logarithms: Sequence[float]) -> float:
        return 1.0 - _scaled(spec, kernel, measured_DD, np.exp(logarithms).tolist())[2]

    ranges = [np.log(limits) for limits in spec.ranges.values()]
    axes = [np.linspace(low, high, _STARTS[len(ranges)]) for low, high in ranges]
    start = min(product(*axes), key=missed)
    found = minimize(
        missed, start, method="Nelder-Mead", bounds=ranges, options={"xatol": 1e-5, "fatol": 1e-12}
    )
    pairs = zip(spec.ranges, found.x, strict=True)
    return {name: float(f"{math.exp(logarithm):.4g}") for name, logarithm in pairs}


def _scaled(
    spec: Fit, kernel: tuple[int, ...], measured_DD: Tensor, parameters: Sequence[float]
) -> tuple[Tensor, float, float]:
    """Return the formula's matrix, its best scale, and the share it explains."""
    matrix_DD: Tensor = implementation(spec)(spec, kernel, *parameters)
    joint, own = float((matrix_DD * measured_DD).sum()), float(matrix_DD.square().sum())
    return matrix_DD, joint / own, joint * joint / own / float(measured_DD.square().sum())


@dataclass(frozen=True, slots=True, eq=False)
class LayerFit:
    """A layer of a harvest and the formula fitted to it."""

    layer: str
    kind: str
    depth: float
    fit: Fitted


def fit_layers(spec: Fit, harvest: Harvest) -> tuple[LayerFit, ...]:
    """Return a formula fitted to each layer of a measured harvest that has a kernel."""
    return tuple(
        LayerFit(found.layer, found.kind, found.depth, fitted(spec, found.covariance))
        for found in harvest.layers
        if found.covariance is not None and math.prod(found.geometry.kernel_size) > 1
    )


def fit_table(spec: Fit, harvest: Harvest) -> Table:
    """Return the fits of a harvest, a row for each layer, and widths of the closed form over depth."""
    fits = fit_layers(spec, harvest)
    rows = tuple(
        (
            *(found.layer, found.kind, f"{found.depth:.2f}"),
            *(f"{value:g}" for value in found.fit.parameters.values()),
            *(f"{found.fit.scale:.4g}", f"{found.fit.explained:.0%}"),
        )
        for found in fits
    )
    header = ("layer", "kind", "depth", *spec.ranges, "scale", "explained")
    notes = tuple(_schedules(spec, fits)) if isinstance(spec, ClosedFormFit) else ()
    return Table(f"{spec.type_name()} fitted", header, rows, notes, left=2)


def _schedules(spec: ClosedFormFit, fits: Sequence[LayerFit]) -> Iterator[str]:
    """Yield the section of a recipe with the widths of each kind of layers."""
    options = spec.model_dump(exclude_defaults=True, exclude={"type"})
    for kind in dict.fromkeys(found.kind for found in fits):
        layers = [found for found in fits if found.kind == kind]
        widths = [found.fit.parameters["width"] for found in layers]
        width = width_over_depth([found.depth for found in layers], widths)
        values = ", ".join(f"{name}: {value:.4f}" for name, value in width.model_dump().items())
        more = "".join(f", {name}: {value}" for name, value in options.items())
        yield f"{kind}: covariance: {{type: closed_form, width: {{{values}}}{more}}}"


def width_over_depth(depths: Sequence[float], widths: Sequence[float]) -> Width:
    """Return start, linear and quadratic by least squares on the relative errors of widths.

    They are non-negative combinations of Bernstein's polynomials, so the width is at least 0 everywhere.
    """
    from scipy.optimize import nnls

    place_N = np.asarray(depths)
    degree = min(_QUADRATIC, len(np.unique(place_N)) - 1)
    columns = [math.comb(degree, k) * place_N**k * (1.0 - place_N) ** (degree - k) for k in range(degree + 1)]
    basis_NK = np.stack(columns, axis=1) / np.asarray(widths)[:, None]
    found, _ = nnls(basis_NK, np.ones(len(place_N)))
    first, *rest = (float(value) for value in found)
    linear = degree * (rest[0] - first) if rest else 0.0
    quadratic = 2.0 * (first - 2.0 * rest[0] + rest[1]) if degree == _QUADRATIC else 0.0
    return Width(start=first, linear=linear, quadratic=quadratic)
