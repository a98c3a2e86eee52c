"""Rainbow resampling: filters of the trained ones' covariance, layer by layer, in the new channels' basis.

Guth, Ménard, Rochette, Mallat, "A rainbow in deep network black boxes" (arXiv 2305.18512), section 3 and its
code. For each layer j in the order of execution:

    Â   = polar factor of E[φψᵀ]         φ, ψ: the layer's inputs in the trained and in the new network so far
    W'  = G·(W_jᵀW_j / C_out)^½·Â        G ~ N(0, 1), as many rows as the new layer has filters

with Â times √(R/N) where the widths differ, and the statistics of the norm layers behind it are measured
before the next layer is aligned. The inputs of the first layer are the images, whose basis is shared; the
last layer is copied in the new basis, W_J·Â.

Beyond the paper: a norm layer right behind a layer is read as part of it. Its scale γ/σ enters the rows, and
their shift enters as one more coordinate, as a bias does; so the new layer computes γ'·(z − μ')/σ' + β' with
σ' = γ', which is the resampled map, whatever its statistics. Other norms are initialized with scale 1 and
shift 0.

Shapes: R channels of the trained network, N of the new one, O filters, I inputs, K kernel, D coordinates.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from mimetic.covariance.activations import LayerCall, alignment, norms, refresh_statistics, steps
from mimetic.covariance.algebra import truncated
from mimetic.covariance.capture import eval_mode
from mimetic.covariance.covariance import Covariance, PatchGeometry, measured
from mimetic.covariance.layout import filters_of, stored
from mimetic.covariance.linalg import multiply
from mimetic.covariance.measure import KINDS
from mimetic.covariance.procrustes import Alignment, polar, rotated, width_scale
from mimetic.covariance.shrinkage import denoised
from mimetic.errors import UserError
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import canonical_modules
from mimetic.graph.site import Geometry
from mimetic.initializers.config import Rainbow
from mimetic.initializers.resolved import NetworkStreams
from mimetic.threads import one_thread

SLOT = "filters"
ROTATION = "rotation"


@dataclass(frozen=True, slots=True)
class Resampled:
    """The result of one layer.

    Attributes:
        layer: Its canonical name.
        explained: Fraction of the trained network's features at its input that the rotated new ones explain;
            None where the inputs are the images.
        copied: Whether its weights were copied instead of drawn, as the classifier's are.
        notes: Changes of the covariance.
    """

    layer: str
    explained: float | None
    copied: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe it in a few words."""
        how = "copied" if self.copied else "resampled"
        parts = [how]
        if self.explained is not None:
            parts.append(f"{self.explained:.1%} of the features at its input explained")
        return ", ".join((*parts, *self.notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The trained network, the new one, and the images of both.

    Attributes:
        trained: The reference; unchanged.
        new: The network to fill, in place, on the CPU.
        images_NCHW: Images as both see them in training: floating point, normalized.
        origin: The trained network's name for messages.
    """

    trained: nn.Module
    new: nn.Module
    images_NCHW: Tensor
    origin: str


@one_thread()
def resample(
    pair: Pair, spec: Rainbow, claimed: Collection[str], streams: NetworkStreams
) -> tuple[Resampled, ...]:
    """Fill layers of a network from a trained one, in the order of execution, in place.

    Args:
        pair: Both networks, of the same layers; widths may differ.
        spec: Alignment, rows, shrinkage and rank; `from` and `images` are not used.
        claimed: Canonical names of the layers to fill; the others keep their values, and the alignment
            continues behind them.
        streams: `streams(parameter, slot)`, by canonical names.

    Returns:
        The result of each filled layer with filters, in order.

    Raises:
        UserError: If the networks' layers are not called in the same order, a layer is called twice, or a
            geometry does not fit: layer, geometries and repair are named.
    """
    # 1. Both networks must call the same layers in the same order.
    work = _Work(pair, spec, frozenset(claimed), streams)
    order = work.order()
    last = next(step.layer for step in reversed(order) if step.layer in work.dense)
    done: list[Resampled] = []
    with eval_mode(pair.new), eval_mode(pair.trained):
        # 2. Norms that belong to no claimed layer get scale 1 and shift 0.
        work.plain_norms(order)
        # 3. Each layer is aligned behind the layers and norms that are already filled.
        before: str | None = None
        for step in order:
            if step.layer not in work.dense:
                work.norm(step)
                continue
            if step.layer in work.claimed:
                norm = next((s.layer for s in order if s.after == step.layer), None)
                done.append(work.layer(step.layer, before, norm, last=step.layer == last))
            before = step.layer
    return tuple(done)


class _Work:
    """A resampling in progress: the layers of both networks, and shifts that norms have yet to receive."""

    def __init__(self, pair: Pair, spec: Rainbow, claimed: frozenset[str], streams: NetworkStreams) -> None:
        self.pair, self.spec, self.claimed, self.streams = pair, spec, claimed, streams
        self.old, self.new = canonical_modules(pair.trained), canonical_modules(pair.new)
        self.dense = {name: g for name, m in self.new.items() if (g := dense_geometry(m)) is not None}
        self.pending_shifts: dict[str, Tensor] = {}  # norm layer → shift of the filters before it

    def order(self) -> tuple[LayerCall, ...]:
        """Return the calls of layers and norms, the same in both networks."""
        few, origin = self.pair.images_NCHW[:2], self.pair.origin
        ours = steps(self.pair.new, {*self.dense, *norms(self.pair.new)}, few, origin="the new network")
        dense = {name for name, module in self.old.items() if dense_geometry(module) is not None}
        theirs = steps(self.pair.trained, {*dense, *norms(self.pair.trained)}, few, origin=origin)
        if ours != theirs:
            # The first call that differs, or that one network has in addition.
            odd = next(o if o is not None else t for o, t in zip_longest(ours, theirs) if o != t)
            raise UserError(
                f"{origin}: `{odd.layer}` is not called at the same place in the new network; rainbow "
                "resamples a network of the same layers",
                code="MIM-I091",
            )
        called = [step.layer for step in ours]
        twice = next((name for name in called if called.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"{origin}: `{twice}` is called more than once in a forward, so its inputs have no single "
                "basis; leave it to another rule",
                code="MIM-I092",
            )
        return ours

    def plain_norms(self, order: tuple[LayerCall, ...]) -> None:
        """Set claimed norms that are not part of a claimed layer to scale 1 and shift 0."""
        part = {s.layer for s in order if s.after in self.claimed and s.after in self.dense}
        for name in self.claimed - set(self.dense) - part:
            module = self.new[name]
            _set(module, "weight", torch.ones(()))
            _set(module, "bias", torch.zeros(()))

    def norm(self, step: LayerCall) -> None:
        """Measure a norm's statistics; one that is part of a filled layer multiplies by its divisor."""
        module = self.new[step.layer]
        refresh_statistics(self.pair.new, step.layer, self.pair.images_NCHW, origin="the new network")
        if step.layer not in self.pending_shifts:
            return
        _set(module, "weight", _deviation(module))
        _set(module, "bias", self.pending_shifts[step.layer] + _values(module, "running_mean"))

    def layer(self, name: str, before: str | None, norm: str | None, *, last: bool) -> Resampled:
        """Draw a layer's filters, or copy them, in the basis of the new network's channels."""
        positions = self._positions(name, before)
        found = None if before is None else self._alignment(name, positions)
        geometry, trained = self.dense[name], self.old[name]
        weight_OIK, shift_O = _folded(trained, None if norm is None else self.old[norm])
        notes: tuple[str, ...] = ()
        if not last:
            weight_OIK, shift_O, notes = self._drawn(name, weight_OIK, shift_O)
        if found is not None:
            weight_OIK = rotated(weight_OIK, found.rotation_RN, positions)
        module = self.new[name]
        _set(module, "weight", stored(weight_OIK, geometry))
        if norm is not None and norm in self.claimed:
            self.pending_shifts[norm] = shift_O
            shift_O = torch.zeros_like(shift_O)
        _set(module, "bias", shift_O)
        return Resampled(name, None if found is None else found.explained, last, notes)

    def _alignment(self, name: str, positions: int) -> Alignment:
        pair = self.pair
        if self.spec.align:
            return alignment(
                pair.trained, pair.new, name, pair.images_NCHW, positions=positions, origin=pair.origin
            )
        old = dense_geometry(self.old[name])
        assert old is not None
        sides = (old.in_channels // positions, self.dense[name].in_channels // positions)
        stream = self.streams(f"{name}.weight", ROTATION)
        rotation_RN, _ = polar(torch.randn(sides, dtype=torch.float64, generator=stream))
        return Alignment(width_scale(rotation_RN) * rotation_RN, None)

    def _drawn(
        self, name: str, weight_OIK: Tensor, shift_O: Tensor
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return the new layer's filters and shifts, drawn from the trained layer's covariance."""
        shifted = bool(shift_O.any())
        rows_OD = weight_OIK.flatten(1)
        rows_OD = torch.cat((rows_OD, shift_O[:, None]), dim=1) if shifted else rows_OD
        count = len(rows_OD)
        patch = PatchGeometry(rows_OD.shape[1])
        source = f"{name} of {self.pair.origin}"
        cov = measured(rows_OD / math.sqrt(count), patch, source=source, samples=count)
        if self.spec.shrink == "spiked":
            cov = denoised(cov, count)
        if self.spec.rank is not None:
            cov = truncated(cov, self.spec.rank)
        stream = self.streams(f"{name}.weight", SLOT)
        outputs = self.dense[name].out_channels
        draw = orthogonal_rows if self.spec.rows == "orthogonal" else Covariance.sample
        drawn_ND = draw(cov, outputs, stream)
        sides = (outputs, *weight_OIK.shape[1:])
        shift_N = drawn_ND[:, -1] if shifted else torch.zeros(outputs, dtype=torch.float64)
        return drawn_ND[:, : math.prod(sides[1:])].reshape(sides), shift_N, cov.provenance.notes

    def _positions(self, name: str, before: str | None) -> int:
        """Return the pixels per channel behind a flattened map: 1 unless a linear layer sees a whole map."""
        old, new = dense_geometry(self.old[name]), self.dense[name]
        assert old is not None
        if before is None:
            return 1
        channels_old, channels_new = self._channels(before)
        if new.kernel_size or new.in_channels == channels_new:
            return 1
        positions, rest = divmod(new.in_channels, channels_new)
        if rest or old.in_channels != positions * channels_old:
            raise UserError(
                f"`{name}` sees {old.in_channels} features behind {channels_old} channels of `{before}` in "
                f"{self.pair.origin}, and {new.in_channels} behind {channels_new} in the new network; "
                "rainbow needs the same number of pixels per channel",
                code="MIM-I093",
            )
        return positions

    def _channels(self, name: str) -> tuple[int, int]:
        old = dense_geometry(self.old[name])
        assert old is not None
        return old.out_channels, self.dense[name].out_channels


def dense_geometry(module: nn.Module) -> Geometry | None:
    """Return the geometry of a convolution or linear layer; None for anything else."""
    kind, geometry = kind_and_geometry(module)
    return geometry if kind in {*KINDS, "conv_transpose"} else None


def orthogonal_rows(cov: Covariance, count: int, stream: torch.Generator) -> Tensor:
    """Return filters (count, d) whose mean square is Σ: exactly where they are at least as many as its rank.

    √max(count, r)·Q·F with Q of orthonormal columns, or rows where they are fewer (arXiv 2305.18512, code).
    """
    noise_NR = torch.randn(count, cov.rank, dtype=torch.float64, generator=stream)
    orthonormal_NR, _ = polar(noise_NR)
    return multiply(math.sqrt(max(count, cov.rank)) * orthonormal_NR, cov.factor_RD)


def _folded(module: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return a layer's filters and shifts with a norm right behind it folded in; float64."""
    geometry = dense_geometry(module)
    assert geometry is not None
    weight_OIK = filters_of(_values(module, "weight"), geometry)
    shift_O = _values(module, "bias", torch.zeros(geometry.out_channels))
    if norm is None:
        return weight_OIK, shift_O
    mean_O = _values(norm, "running_mean")
    ones = torch.ones_like(mean_O)
    gain_O = _values(norm, "weight", ones) / _deviation(norm)
    shift_O = _values(norm, "bias", torch.zeros_like(mean_O)) + gain_O * (shift_O - mean_O)
    return weight_OIK * gain_O.view(-1, *[1] * (weight_OIK.ndim - 1)), shift_O


def _deviation(norm: nn.Module) -> Tensor:
    """Return √(σ² + ε), by which a norm divides."""
    return (_values(norm, "running_var") + float(vars(norm)["eps"])).sqrt()


def _values(module: nn.Module, name: str, absent: Tensor | None = None) -> Tensor:
    found = getattr(module, name, None)
    tensor = absent if found is None else found
    assert isinstance(tensor, Tensor)
    return tensor.detach().to("cpu", torch.float64)


@torch.no_grad()
def _set(module: nn.Module, name: str, values: Tensor) -> None:
    """Write a parameter if the layer has it."""
    found = getattr(module, name, None)
    if isinstance(found, Tensor):
        found.copy_(values)
