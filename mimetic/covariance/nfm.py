"""Neural feature matrix: the second moment WᵀW of a layer's whole filters, uncentered.

Beaglehole, Radhakrishnan, Pandit, Belkin (arXiv 2309.00570); the factor is the weight itself, so drawing
from it is ε·W and costs nothing (the study's route through a d×d eigendecomposition takes minutes).

Shapes: O filters, D = channels·kernel coordinates in torch's order (channel, row, column).
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from mimetic.covariance.config import Nfm
from mimetic.covariance.covariance import Covariance, PatchGeometry, derived, measured
from mimetic.covariance.linalg import eigh, multiply
from mimetic.covariance.measure import Task, refine
from mimetic.covariance.network import TrainedNetwork
from mimetic.errors import UserError
from mimetic.threads import one_thread

Normalize = Literal["sum", "mean"]

JITTER = 1e-6
"""What the NFM study adds beyond the smallest eigenvalue (its `init_weights.py`)."""


def nfm(
    weight_OIK: Tensor,
    *,
    normalize: Normalize = "sum",
    initial_OIK: Tensor | None = None,
    source: str = "nfm",
) -> Covariance:
    """Return Wᵀ·W over a layer's filters, or its mean over filters.

    For a grouped convolution this is the sum over the groups; see `nfm_per_group`.

    Args:
        weight_OIK: Filters (outputs, inputs of a group, *kernel); a matrix for linear layers.
        normalize: `sum` (arXiv 2309.00570) or `mean` over filters (its hyper-parameter study, rainbow).
        initial_OIK: The weight at initialization: then of the change W − W₀, which leaves out the
            isotropic part that training did not touch (centered NFA).
        source: Name of the source for messages.

    Raises:
        UserError: If shapes differ or values are not finite.
    """
    change = weight_OIK if initial_OIK is None else _difference(weight_OIK, initial_OIK, source)
    factor_OD = change.detach().double().cpu().flatten(1)
    if normalize == "mean":
        factor_OD = factor_OD / math.sqrt(len(factor_OD))
    return measured(factor_OD, patch_of(weight_OIK), source=source, samples=len(weight_OIK))


def measure_nfm(spec: Nfm, network: TrainedNetwork, task: Task) -> dict[str, Covariance]:
    """Return the NFM of each layer, or that of its change in training."""
    found: dict[str, Covariance] = {}
    for site in task.sites:
        weight_OIK = network.weight_or_change(site, change=spec.needs_initial)
        source = f"nfm of {site.layer} of {network.origin}"
        cov = nfm(weight_OIK, normalize=spec.normalize, source=source)
        found[site.layer] = refine(cov, spec, weight_OIK.flatten(1))
        task.report(len(found), len(task.sites))
    return found


def nfm_per_group(
    weight_OIK: Tensor, groups: int, *, normalize: Normalize = "sum", source: str = "nfm"
) -> tuple[Covariance, ...]:
    """Return the NFM of each group of a grouped convolution, over that group's filters alone."""
    return tuple(
        nfm(part_OIK, normalize=normalize, source=f"{source} group {group}")
        for group, part_OIK in enumerate(weight_OIK.chunk(groups))
    )


@one_thread()
def entry_centered_nfm(weight_OIK: Tensor, *, source: str = "entry-centered nfm") -> Covariance:
    """Return WᵀW minus the mean of its d² entries, made PSD by the NFM study's shift.

    The study's matrices may have come out of a correlation helper that centers in place (its notebook
    finds λ_min = −0.427 for a matrix WᵀW); its `transform` then adds |λ_min| + 1e-6 to every eigenvalue.
    Kept to reproduce that study, not recommended: the shift is an isotropic part of full rank, so this
    factor alone is d×d.

    With A = FᵀF − m·11ᵀ = U·Λ·Uᵀ on its range, the factor of A + s·I is √s·I + U·(√(Λ + s) − √s)·Uᵀ.
    """
    factor_OD = weight_OIK.detach().double().cpu().flatten(1)
    size = factor_OD.shape[1]
    mean = float(factor_OD.sum(dim=1).square().sum()) / size**2
    spanning = torch.cat((factor_OD, torch.ones(1, size, dtype=torch.float64)))
    with one_thread():
        basis_DB, core_BR = torch.linalg.qr(spanning.T)
    sign_R = torch.ones(len(spanning), dtype=torch.float64)
    sign_R[-1] = -mean
    values_B, vectors_BB = eigh(multiply(core_BR * sign_R, core_BR.T))
    smallest = min(float(values_B[0]), 0.0) if len(values_B) < size else float(values_B[0])
    shift = abs(smallest) + JITTER if smallest <= 0.0 else 0.0
    range_DB = multiply(basis_DB, vectors_BB)
    stretch_B = (values_B + shift).clamp(min=0.0).sqrt() - math.sqrt(shift)
    root_DD = multiply(range_DB * stretch_B, range_DB.T)
    root_DD.diagonal().add_(math.sqrt(shift))
    plain = nfm(weight_OIK, source=source)
    repair = f"entries centered by {mean:.4g}, all eigenvalues shifted by {shift:.4g}"
    moved = derived(plain, root_DD, plain.patch, note="entry-centered")
    told = replace(
        moved.provenance,
        smallest_eigenvalue=smallest,
        largest_eigenvalue=float(values_B[-1]),
        repair=repair,
    )
    return replace(moved, provenance=told)


def patch_of(weight_OIK: Tensor) -> PatchGeometry:
    """Return the patch that the filters of a weight see."""
    return PatchGeometry(weight_OIK.shape[1], tuple(weight_OIK.shape[2:]))


def _difference(weight_OIK: Tensor, initial_OIK: Tensor, source: str) -> Tensor:
    if weight_OIK.shape != initial_OIK.shape:
        raise UserError(
            f"{source}: the weight has shape {tuple(weight_OIK.shape)}, "
            f"the initial one {tuple(initial_OIK.shape)}; give the same layer before and after training",
            code="MIM-V191",
        )
    return weight_OIK.double() - initial_OIK.double()
