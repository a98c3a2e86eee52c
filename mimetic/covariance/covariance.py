"""A covariance over the coordinates of a filter's patch, in factor form.

Σ = FᵀF with F of shape (r, d): a filter is ε·F with ε ~ N(0, I_r). For the covariances of trained
networks r is the number of filters, far below d = channels·rows·columns, and the d×d matrix is never
formed.

Shapes: R rank of the factor, D patch coordinates (channel, row, column) in row-major order, N draws.
"""

import math
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import torch
from torch import Tensor

from mimetic.covariance.linalg import compact, eigvalsh, smaller_gram
from mimetic.errors import UserError
from mimetic.graph.site import shape_text
from mimetic.threads import one_thread

_CHUNK = 2**20
_RELATIVE_RANK = 1e-12
_DENSEST = 2048
"""Most coordinates of a patch whose covariance is written out."""


@dataclass(frozen=True, slots=True)
class PatchGeometry:
    """What a filter sees: coordinates (channel, row, column), flattened row-major.

    Attributes:
        channels: Channels of the patch. 1 for a spatial covariance, from which every input channel of a
            filter is drawn independently.
        kernel_size: Sides of the kernel, empty for linear layers.
    """

    channels: int
    kernel_size: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Return the number d of coordinates."""
        return self.channels * math.prod(self.kernel_size)

    def __str__(self) -> str:
        return shape_text((self.channels, *self.kernel_size))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a covariance comes from and what was done to it.

    Attributes:
        source: Name of the source, e.g. `closed_form`, `nfm of features.3`.
        samples: Number of filters, patches or images it was estimated from; None for formulas.
        rank: Number of eigenvalues that are not zero, after repair.
        smallest_eigenvalue: Of the matrix as the source gave it, before any repair.
        largest_eigenvalue: Of the same matrix.
        repair: What was done to make it positive semidefinite; None if nothing was.
        notes: What was done since ("resized 5→9"), oldest first.
        digest: Digest of the factor where it was measured or loaded; None where it follows from arguments.
    """

    source: str
    samples: int | None = None
    rank: int | None = None
    smallest_eigenvalue: float | None = None
    largest_eigenvalue: float | None = None
    repair: str | None = None
    notes: tuple[str, ...] = ()
    digest: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Covariance:
    """The second moment of filters over their patch coordinates, Σ = FᵀF.

    Attributes:
        factor_RD: The factor F, float64 on the CPU. Treat it as immutable.
        patch: What the coordinates mean.
        provenance: Where it comes from.

    Raises:
        UserError: If the factor has another shape than the patch, or has values that are not finite.
    """

    factor_RD: Tensor
    patch: PatchGeometry
    provenance: Provenance = field(default_factory=lambda: Provenance("given"))

    def __post_init__(self) -> None:
        factor = self.factor_RD
        where = f"covariance `{self.provenance.source}`"
        if factor.ndim != 2 or factor.shape[0] < 1 or factor.shape[1] != self.patch.size:  # noqa: PLR2004
            raise UserError(
                f"{where}: its factor has shape {tuple(factor.shape)}, but a patch {self.patch} needs "
                f"(rank, {self.patch.size}); harvest it again",
                code="MIM-V141",
            )
        if factor.dtype != torch.float64 or factor.device.type != "cpu":
            raise UserError(
                f"{where}: its factor is {factor.dtype} on {factor.device}; give float64 on the CPU",
                code="MIM-V142",
            )
        if not all(math.isfinite(extreme) for extreme in factor.aminmax()):
            raise UserError(
                f"{where}: its factor has NaN or infinite values; check the weights or data it came from",
                code="MIM-V143",
            )

    @property
    def rank(self) -> int:
        """Return the number r of rows of the factor, a bound on the rank of Σ."""
        return self.factor_RD.shape[0]

    @property
    def trace(self) -> float:
        """Return tr Σ = ‖F‖²_F, the expected energy E‖f‖² of one draw."""
        flat = self.factor_RD.flatten()
        with one_thread():
            return float(flat @ flat)

    @property
    def independent_entries(self) -> float:
        """Return how many independent values one draw amounts to, between 1 and d.

        The smaller of tr(Σ)²/tr(Σ²), which governs how far the energy of draws scatters, and
        d·tr(Σ)/(1ᵀΣ1), which governs their mean. Zero for a covariance that is zero.
        """
        trace = self.trace
        if trace == 0.0:
            return 0.0
        with one_thread():
            squared = float(smaller_gram(self.factor_RD).square().sum())
            total = float(self.factor_RD.sum(dim=1).square().sum())
        energy = trace * (trace / squared)
        mean = self.patch.size * trace / total if total > 0.0 else math.inf
        return min(energy, mean)

    def eigenvalues(self) -> Tensor:
        """Return the min(r, d) eigenvalues of Σ that can differ from zero, largest first."""
        return eigvalsh(smaller_gram(self.factor_RD)).flip(0).clamp(min=0.0)

    def sample(self, count: int, generator: torch.Generator, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return independent draws ε·F ~ N(0, Σ) as a contiguous (count, d) tensor.

        Normals and product are float64 and only the result is cast; blocks of fixed size bound the
        memory, and the product runs in one thread, so that the bits depend on the generator alone.
        """
        drawn_ND = torch.empty(count, self.patch.size, dtype=dtype)
        rows = max(1, _CHUNK // max(self.factor_RD.shape))
        with one_thread():
            for start in range(0, count, rows):
                block = min(rows, count - start)
                noise_NR = torch.randn(block, self.rank, dtype=torch.float64, generator=generator)
                drawn_ND[start : start + block] = noise_NR @ self.factor_RD
        return drawn_ND

    def scale_by(self, gain: float) -> "Covariance":
        """Return the covariance of the draws times a number: Σ·gain²."""
        if gain == 1.0:
            return self
        about = self.provenance
        smallest, largest = (
            None if value is None else value * (gain * gain)
            for value in (about.smallest_eigenvalue, about.largest_eigenvalue)
        )
        scaled = replace(about, smallest_eigenvalue=smallest, largest_eigenvalue=largest)
        return Covariance(self.factor_RD * gain, self.patch, scaled)

    def noted(self, note: str) -> "Covariance":
        """Return the same covariance with a note of what was done to it."""
        return replace(self, provenance=replace(self.provenance, notes=(*self.provenance.notes, note)))

    def dense(self) -> Tensor:
        """Return Σ as a (d, d) matrix, for pictures and tests.

        Raises:
            UserError: If d is large: such a matrix is never needed to draw.
        """
        if self.patch.size > _DENSEST:
            raise UserError(
                f"covariance `{self.provenance.source}`: a dense matrix over {self.patch.size} "
                f"coordinates is too large (limit {_DENSEST}); use the factor",
                code="MIM-V144",
            )
        return self.factor_RD.T @ self.factor_RD

    def digest(self) -> str:
        """Return a digest of patch and factor, exact to the bit."""
        state = blake2b(f"{self.patch}|{self.rank}|".encode(), digest_size=16)
        state.update(self.factor_RD.contiguous().numpy().tobytes())
        return state.hexdigest()


def measured(
    factor_RD: Tensor, patch: PatchGeometry, *, source: str, samples: int, notes: tuple[str, ...] = ()
) -> Covariance:
    """Return a covariance estimated from data or weights, with its spectrum and digest in the provenance.

    Args:
        factor_RD: Factor (r, d) of any float dtype and device; more than d rows are compacted.
        patch: What the coordinates mean.
        source: Name of the source, as messages should show it.
        samples: Number of filters, patches or images it was estimated from.
        notes: What was done on the way.
    """
    factor = factor_RD.detach().to("cpu", torch.float64).contiguous()
    whole = Covariance(factor, patch, Provenance(source, samples=samples, notes=notes))
    compacted, values_K = compact(factor)
    return Covariance(compacted, patch, _described(whole.provenance, values_K, patch.size, whole.digest()))


def derived(cov: Covariance, factor_RD: Tensor, patch: PatchGeometry, *, note: str) -> Covariance:
    """Return what an operation made of a covariance, with the operation in its notes and its digest.

    The digest is that of the operand and the note, so it does not depend on the last bits of the result.
    """
    about = replace(cov.provenance, notes=(*cov.provenance.notes, note))
    before = cov.digest() if about.digest is None else about.digest
    digest = blake2b(f"{before}|{note}".encode(), digest_size=16).hexdigest()
    checked = Covariance(factor_RD.contiguous(), patch, about)
    compacted, values_K = compact(checked.factor_RD)
    return Covariance(compacted, patch, _described(about, values_K, patch.size, digest))


def _described(about: Provenance, values_K: Tensor, size: int, digest: str) -> Provenance:
    """Fill in digest, rank and extreme eigenvalues; those of the `size` that are not given are zero."""
    values = values_K.clamp(min=0.0)
    rank = int((values > values[-1] * _RELATIVE_RANK).sum())
    return replace(
        about,
        rank=rank,
        smallest_eigenvalue=0.0 if rank < size else float(values[0]),
        largest_eigenvalue=float(values[-1]),
        digest=digest,
    )
