"""Statistics of trained attention: what `mimetic_attention` draws, measured on a network.

    trained network → maps by layer → mean diagonal and energy of both products → α, β → `mimetic_attention`

Row-vector convention: P = W_Q·W_Kᵀ of each head, and P = Σ_h W_V·W_out of the layer. Their mean diagonal is
tr P / n with n = min(M, N), and their scatter the α of P ≈ mean·I + α·Z with entries of Z of variance
1/√(MN): √((‖P‖² − n·mean²) / √(MN)). The initializer draws A = αZ + βI and keeps its best approximation of
the product's rank, whose mean and energy are smaller. So α and β are those for which *its* product has the
mean and the energy that were measured (simulated moments); of full rank they are scatter and mean.

Source of the form: Trockman and Kolter, arXiv 2305.09828. The measurement is ours.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mimetic.ambient import fixed_settings
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.store import ATTENTION, count_of, damaged, number_of, read_header, save_header
from mimetic.covariance.transfer import depth_position
from mimetic.errors import UserError
from mimetic.graph.computed import tensor_in_use
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention
from mimetic.initializers.attention_maps import NearIdentity, balanced
from mimetic.initializers.composite import read_maps
from mimetic.printable import pluralize
from mimetic.streams import generator
from mimetic.tables import Table
from mimetic.threads import one_thread

_MAPS = ("q", "k", "v", "out")
_ANGLES, _WIDEST, _ROWS, _DRAWS = 17, 256, 1024, 16
"""The simulation: points between α = 1, β = 0 and α = 0, β = 1; its largest width; rows of all draws; most
draws."""


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """One attention. The numbers `qk_noise` to `vp_diag` are those of `mimetic_attention`.

    Attributes:
        layer: Canonical name in its own network.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a query or key.
        width: Inputs of the queries.
        qk_noise: α of a head's query–key product.
        qk_diag: β of it.
        vp_noise: α of the value–projection product.
        vp_diag: The identity subtracted there, −β.
        qk_mean: Mean diagonal of the query–key products as they are.
        qk_scatter: Scatter about it.
        qk_share: (Σ tr P)² / (rank·Σ‖P‖²): 1 of a multiple of a projection, about 0 of random maps.
        vp_mean: As `qk_mean`, of the value–projection product.
        vp_scatter: As `qk_scatter`.
        vp_share: As `qk_share`.
    """

    layer: str
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    qk_noise: float
    qk_diag: float
    vp_noise: float
    vp_diag: float
    qk_mean: float
    qk_scatter: float
    qk_share: float
    vp_mean: float
    vp_scatter: float
    vp_share: float


class Values(NamedTuple):
    """The four numbers of `mimetic_attention`."""

    qk_noise: float
    qk_diag: float
    vp_noise: float
    vp_diag: float


_NUMBERS = tuple(f.name for f in fields(LayerStatistics) if f.type is float)
_COUNTS = tuple(f.name for f in fields(LayerStatistics) if f.type is int)


@dataclass(frozen=True, slots=True, repr=False)
class AttentionStatistics:
    """The attention of one network in order of execution.

    Attributes:
        origin: The network, as messages and plans show it.
        layers: Its layers; at least one.
    """

    origin: str
    layers: tuple[LayerStatistics, ...]

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"<AttentionStatistics: {self.summary}>"

    def _repr_html_(self) -> str:
        return self.table().page()

    @property
    def summary(self) -> str:
        """Return what was measured, of which network, in how many layers."""
        count = len(self.layers)
        return f"attention of {self.origin}, {pluralize(count, 'layer')}"

    @property
    def digest(self) -> str:
        """Return a digest of the layers; the origin does not enter."""
        return blake2b(repr(self.layers).encode(), digest_size=16).hexdigest()

    def table(self) -> Table:
        """Return the numbers, one row for each layer."""
        columns = ("layer", "heads", *Values._fields, "qk_mean", "qk_share", "vp_mean", "vp_share")
        rows = []
        for found in self.layers:
            about = asdict(found) | {"heads": f"{found.heads} of {found.head_dim}"}
            rows.append(tuple(format(about[c], ".3g" if c in _NUMBERS else "") for c in columns))
        optional = ("vp_mean", "qk_mean", "heads", "vp_share", "qk_share")
        return Table(self.summary, columns, tuple(rows), optional=optional)

    def to_dict(self) -> dict[str, object]:
        """Return the statistics as plain values."""
        layers = [asdict(found) for found in self.layers]
        return {"statistic": "attention", "origin": self.origin, "digest": self.digest, "layers": layers}

    def at(self, depth: float) -> tuple[Values, str]:
        """Return the numbers at a depth fraction, linear between two layers, and a note of where that is."""
        lower, share = depth_position(depth, len(self.layers))
        below, above = self.layers[lower], self.layers[min(lower + 1, len(self.layers) - 1)]
        pairs = ((getattr(below, name), getattr(above, name)) for name in Values._fields)
        values = Values(*((1.0 - share) * one + share * other for one, other in pairs))
        where = f"between {below.layer} and {above.layer}" if share > 0.0 else f"at {below.layer}"
        return values, f"depth {depth:.2f} {where} of {self.origin}"


# ------------------------------------------------------------------------------------------- measuring
@fixed_settings()
def measure_attention(network: TrainedNetwork) -> AttentionStatistics:
    """Return the statistics of a network's attention.

    Raises:
        UserError: If it has none, or its weights have no finite values.
    """
    sites = attention_sites(network)
    with one_thread(), torch.no_grad():
        return AttentionStatistics(network.origin, tuple(_measured(network, site) for site in sites))


def attention_sites(network: TrainedNetwork) -> list[Site]:
    """Return the attentions of which all four maps are known.

    Raises:
        UserError: If there is none.
    """
    composites = [site for site in network.graph.composites if isinstance(site.structure, Attention)]
    found = [site for site in composites if all(site.slot(name) is not None for name in _MAPS)]
    if found:
        return found
    raise UserError(
        f"{network.origin}: it has no attention whose statistics could be measured; choose another network, "
        "or give the four numbers of `mimetic_attention`",
        code="MIM-I120",
    )


def _measured(network: TrainedNetwork, site: Site) -> LayerStatistics:
    structure = site.structure
    assert isinstance(structure, Attention)
    maps = _maps(network, site)
    heads, shared = structure.heads, structure.heads // structure.kv_heads
    # Each head's product, from queries and keys; keys and values are those of its group.
    keys = maps["k"].view(structure.kv_heads, structure.head_dim, -1).repeat_interleave(shared, dim=0)
    queries = maps["q"].view(heads, structure.head_dim, -1)
    qk = _Products.of(list(zip(queries, keys, strict=True)), rank=structure.head_dim, stacked=shared)
    values = maps["v"].view(structure.kv_heads, structure.value_dim, -1).repeat_interleave(shared, dim=0)
    vp = _Products.of(
        [(values.flatten(0, 1), maps["out"].T)], rank=structure.kv_heads * structure.value_dim, stacked=1
    )
    (qk_noise, qk_diag), (vp_noise, vp_diag) = qk.noise_and_diagonal(), vp.noise_and_diagonal()
    numbers = {"qk_noise": qk_noise, "qk_diag": qk_diag, "vp_noise": vp_noise, "vp_diag": -vp_diag}
    for name, found in (("qk", qk), ("vp", vp)):
        numbers |= {
            f"{name}_mean": found.mean,
            f"{name}_scatter": found.scatter,
            f"{name}_share": found.share,
        }
    return LayerStatistics(
        site.layer,
        heads,
        structure.kv_heads,
        structure.head_dim,
        maps["q"].shape[1],
        **{name: float(f"{value:.6g}") + 0.0 for name, value in numbers.items()},
    )


def _maps(network: TrainedNetwork, site: Site) -> dict[str, Tensor]:
    """Return the four maps of a layer, float64 on the CPU.

    Raises:
        UserError: If they have no finite values.
    """
    tensors = {}
    for local in {slot.parameter for slot in map(site.slot, _MAPS) if slot is not None}:
        path, _, name = local.rpartition(".")
        layer = network.modules[site.layer].get_submodule(path)
        if any(parameter.is_meta for parameter in layer.parameters()):
            raise UserError(
                f"{network.origin}: `{site.layer}` is on the meta device and has no values; build the "
                "network on a real device and load its weights",
                code="MIM-I121",
            )
        tensors[local] = tensor_in_use(layer, name).to("cpu", torch.float64)
        if not bool(torch.isfinite(tensors[local]).all()):
            raise UserError(
                f"{network.origin}: the attention `{site.layer}` has NaN or infinite values in `{local}`: "
                "training diverged, or the file is damaged; take another seed or checkpoint",
                code="MIM-I122",
            )
    return read_maps(site, tensors)


@dataclass(frozen=True, slots=True)
class _Products:
    """Moments of products P (M, N), averaged over heads.

    Attributes:
        shape: M and N.
        rank: Rank that the initializer's product has.
        stacked: How many products the initializer factors together.
        mean: Mean diagonal.
        energy: ‖P‖².
    """

    shape: tuple[int, int]
    rank: int
    stacked: int
    mean: float
    energy: float

    @classmethod
    def of(cls, factors: list[tuple[Tensor, Tensor]], *, rank: int, stacked: int) -> "_Products":
        """Return the moments of P = LᵀR of each pair of factors (r, M) and (r, N); no P is formed."""
        shape = (factors[0][0].shape[1], factors[0][1].shape[1])
        side = min(shape)
        traces = [float((left[:, :side] * right[:, :side]).sum()) for left, right in factors]
        energies = [float(((left @ left.T) * (right @ right.T)).sum()) for left, right in factors]
        count = len(factors)
        return cls(shape, rank, stacked, sum(traces) / (side * count), max(sum(energies) / count, 0.0))

    @property
    def scatter(self) -> float:
        """Return the size of what is not mean·I."""
        rest = self.energy - min(self.shape) * self.mean**2
        return math.sqrt(max(rest, 0.0) / math.sqrt(math.prod(self.shape)))

    @property
    def share(self) -> float:
        """Return (tr P)² / (rank·‖P‖²), at most 1."""
        side = min(self.shape)
        return (side * self.mean) ** 2 / (min(self.rank, side) * self.energy) if self.energy > 0.0 else 0.0

    def noise_and_diagonal(self) -> tuple[float, float]:
        """Return α ≥ 0 and β for which the initializer's products have this mean and this energy."""
        if self.energy == 0.0:
            return 0.0, 0.0
        if self.stacked == 1 and self.rank >= min(self.shape):
            return self.scatter, self.mean  # the initializer keeps all of A
        cosines, energies = _simulated(self.shape, self.rank, self.stacked)
        place = _interpolated(min(math.sqrt(self.share), 1.0), cosines, torch.arange(_ANGLES).double())
        angle = math.copysign(place * math.pi / 2.0 / (_ANGLES - 1), self.mean)
        energy = _interpolated(place, torch.arange(_ANGLES).double(), energies)
        size = math.sqrt(self.energy / min(self.shape) / energy)
        return size * math.cos(angle), size * math.sin(angle)


@lru_cache(maxsize=32)
def _simulated(shape: tuple[int, int], rank: int, stacked: int) -> tuple[Tensor, Tensor]:
    """Return √share and ‖P‖² / n of the initializer's products at angles θ, α = cos θ and β = sin θ.

    Wide layers are simulated at a smaller width of the same proportions: moments hardly depend on it.
    """
    ratio = min(1.0, _WIDEST / max(shape))
    rows, columns = (max(1, round(side * ratio)) for side in shape)
    small = max(1, round(rank * ratio))
    cosines, energies = torch.zeros(_ANGLES).double(), torch.zeros(_ANGLES).double()
    draws = min(_DRAWS, math.ceil(_ROWS / rows))
    for index in range(_ANGLES):
        angle = index * math.pi / 2.0 / (_ANGLES - 1)
        target = NearIdentity(math.cos(angle), math.sin(angle), "normal")
        factors = []
        for draw in range(draws):
            stream = generator("attention statistics", draw)
            parts = [target.sample(rows, columns, stream) for _ in range(stacked)]
            left_MR, right_RN = balanced(torch.cat(parts), small)
            factors += [(part.T, right_RN) for part in left_MR.chunk(stacked)]
        found = _Products.of(factors, rank=small, stacked=stacked)
        cosines[index], energies[index] = math.sqrt(found.share), found.energy / min(rows, columns)
    cosines[0] = 0.0
    return cosines.cummax(0).values, energies


def _interpolated(value: float, places: Tensor, values: Tensor) -> float:
    """Return a function that is linear between places (ascending) at a value between them."""
    above = int(torch.searchsorted(places, value).clamp(1, len(places) - 1))
    low, high = float(places[above - 1]), float(places[above])
    share = 0.0 if high == low else min(max((value - low) / (high - low), 0.0), 1.0)
    return float(torch.lerp(values[above - 1], values[above], share))


# ------------------------------------------------------------------------------------------- files
def save_attention(path: Path, found: AttentionStatistics) -> None:
    """Write statistics, in full or not at all."""
    layers = {layer.layer: {n: getattr(layer, n) for n in (*_COUNTS, *_NUMBERS)} for layer in found.layers}
    save_header(path, {"format": ATTENTION, "about": {"origin": found.origin}, "layers": layers})


def load_attention(path: Path) -> AttentionStatistics:
    """Read statistics.

    Raises:
        UserError: If the file is missing, damaged, or has none.
    """
    header = read_header(path, (ATTENTION,))
    try:
        found = AttentionStatistics(
            str(header["about"]["origin"]),
            tuple(_read(name, about) for name, about in header["layers"].items()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"its statistics of attention are not readable ({error})") from error
    if not found.layers:
        raise damaged(path, "it has no attention")
    return found


def _read(name: str, about: Mapping[str, object]) -> LayerStatistics:
    numbers = {key: number_of(about[key]) for key in _NUMBERS}
    for key in ("qk_noise", "vp_noise"):
        if numbers[key] < 0.0:
            raise ValueError(f"`{name}` has a {key} of {numbers[key]}, below 0")
    heads, kv_heads, head_dim, width = (count_of(about[key]) for key in _COUNTS)
    return LayerStatistics(name, heads, kv_heads, head_dim, width, **numbers)
