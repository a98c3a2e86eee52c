"""Impulse attention: each head attends to one neighbour of a token, by its position (arXiv 2505.19985).

Zheng, Li and Lucey, *Structured Initialization for Vision Transformers*, as in their code: logits T = 1000·H
+ 3·Z·[H = 0] with H the impulse matrix of an offset and Z truncated normal (std 0.6, cut at ±2), pulled back
through the positions P by the pseudo-inverse cut at the head's rank, A = P⁺·T·P⁺ᵀ, and split by singular
values. Offsets go round the 3×3 window in a fixed order. P is the table of positions after a layer norm; the
published one is 18·N(0, 0.02²).

Smooth tables, such as sinusoids, have singular values near 0. These would dominate P⁺, and the factors, which
have a fixed norm, would give logits of 0. So they are left out (ours).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from mimetic.covariance.context import Context
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_modules, canonical_parameters
from mimetic.graph.site import Site
from mimetic.graph.structure import Attention, Position
from mimetic.initializers import config
from mimetic.initializers.attention import attention_init, attention_of, input_widths, zero_biases
from mimetic.initializers.attention_maps import NearIdentity, balanced, value_out_maps
from mimetic.initializers.composite import MapStreams, assemble, read_maps
from mimetic.initializers.positions import check_sincos_width, grid_of
from mimetic.initializers.resolved import NetworkInit, NetworkStreams, ResolvedInit
from mimetic.initializers.univariate import normal
from mimetic.models.sincos import sincos2d
from mimetic.threads import one_thread, side_by_side

OFFSETS = ((0, 0), (-1, 0), (0, 1), (0, -1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Row and column of the neighbour that head i mod 9 attends to."""

IMPULSE_HEIGHT, IMPULSE_NOISE, IMPULSE_NOISE_STD = 1000.0, 3.0, 0.6

POSITION_STD = 18.0 * 0.02
"""Standard deviation of random positions."""

SINGULAR_CUT = 0.05
"""Default of `singular_cut` for positions that are not random. Of sinusoids on grids of 4×4 to 32×32, 0.05
gives the highest probabilities at which nearly every token attends most to its target."""

PEAKED = 0.1
"""Least mean probability of the target, on a logarithmic scale from uniform attention, 0, to certain, 1."""

Basis = tuple[Tensor, Tensor, Tensor]
"""Singular vectors and values of the positions, see `principal`."""

Read = Callable[[str], Tensor]
"""Returns the values of a parameter of the network, float64 on the CPU."""


def impulse_attention(spec: config.ImpulseAttention, site: Site, context: Context) -> ResolvedInit:
    """Resolve heads that attend to neighbours (arXiv 2505.19985), and the random positions they fit.

    Guarantee: the mean probability of the target is checked before and after writing, see `check_peaked`.

    Raises:
        UserError: If the positions are not known or do not fit, or heads share keys.
    """
    # 1. The table of positions, where the rule fills it, is random.
    if isinstance(site.structure, Position):
        table = normal(config.Normal(std=POSITION_STD), site, context)
        return replace(table, name=spec.type_name(), arguments={"positions": "random", "std": POSITION_STD})
    # 2. Sizes, grid and positions must fit.
    heads = _impulse_heads(spec, site)
    rows, columns = heads.grid if heads.attention.grid is None else heads.attention.grid
    differs = (
        f"the rule takes the tokens as {heads.grid[0]}×{heads.grid[1]}, where the table of positions has "
        f"{rows}×{columns}"
    )
    resolved = attention_init(
        spec,
        site,
        context,
        lambda _stream: {},
        notes=() if heads.grid == (rows, columns) else (differs,),
        grid=list(heads.grid),
        singular_cut=heads.singular_cut,
    )
    if not any(local in site.slots_by_parameter() for local in context.parameters):
        return resolved
    # 3. The maps fit the table as it will be, so they are drawn when all else is.
    maps = {slot.parameter for slot in heads.attention.slots if slot.name in {"q", "k"}}
    check = partial(check_peaked, heads, site) if maps.issubset(context.parameters) else None

    def fill(network: nn.Module, layers: Mapping[str, object], streams: NetworkStreams) -> Mapping[str, str]:
        (layer,) = layers
        parameters = canonical_parameters(network)

        def read(name: str) -> Tensor:
            return parameters[name].detach().double()

        drawn = heads.sample_maps(heads.positions(read), lambda slot: streams(site.layer, slot))
        drawn |= zero_biases(spec, site)
        stored = assemble(site, drawn, context.parameters, canonical_modules(network)[layer])
        with torch.no_grad():
            for local, tensor in stored.items():
                parameters[site.parameter(local).name].copy_(tensor)
        return {} if check is None else {layer: check(read)}

    network_init = NetworkInit(f"impulse {site.layer}", fill)
    return replace(resolved, sample=lambda *_: {}, network_init=network_init, check=check)


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one attention.

    Attributes:
        spec: The section.
        layer: Name of the attention, for messages.
        attention: Its structure.
        widths: Inputs d of queries and keys; inputs of values and outputs of the projection.
        grid: Rows and columns of the tokens.
        singular_cut: As resolved.
    """

    spec: config.ImpulseAttention
    layer: str
    attention: Attention
    widths: tuple[int, tuple[int, int]]
    grid: tuple[int, int]
    singular_cut: float

    def positions(self, read: Read) -> Tensor:
        """Return the positions (N, d) that the weights fit, after the layer norm.

        Raises:
            RunError: If they are zero or not finite.
        """
        table_ND = None if self.spec.positions == "sincos2d" else self._table(read)
        if table_ND is None:
            table_ND = self._sinusoids()
        if not 0.0 < float(table_ND.abs().max()) < math.inf:
            raise RunError(
                f"{self.layer}: impulse_attention fits the table of positions, which is zero or not finite; "
                "fill it by a rule, or leave `positions: table` out",
                code="MIM-I036",
            )
        return functional.layer_norm(table_ND, table_ND.shape[1:])

    def sample_maps(self, positions_ND: Tensor, stream: MapStreams) -> dict[str, Tensor]:
        """Return the four maps."""
        attention, spec = self.attention, self.spec
        rank = attention.head_dim
        with one_thread():
            basis = principal(positions_ND, rank, cut=self.singular_cut)

        def head(index: int) -> tuple[Tensor, Tensor]:
            logits_NN = impulse_logits(self.grid, offset_of(index), stream(f"impulse.head{index}"))
            return impulse_factors(basis, logits_NN, rank=rank, norm=spec.norm)

        pairs = side_by_side(head, range(attention.heads))
        value_out = NearIdentity(spec.vp_noise, -spec.vp_diag, spec.noise)
        v, out = value_out_maps(attention, self.widths[1], value_out, stream)
        q, k = (torch.cat([pair[i].T for pair in pairs]) for i in range(2))
        return {"q": q, "k": k, "v": v, "out": out}

    def target_probabilities(self, maps: Mapping[str, Tensor], read: Read) -> list[float]:
        """Return the probability of the target by head, a mean over the positions that have one.

        Of the network's own positions, where there is a table of this grid.
        """
        table_ND = self._table(read) if self.grid == self.attention.grid else None
        table_ND = self._sinusoids() if table_ND is None else table_ND
        tokens_ND = functional.layer_norm(table_ND, table_ND.shape[1:])
        q_HNK, k_HNK = (
            torch.stack((tokens_ND @ maps[name].double().T).chunk(self.attention.heads, dim=1))
            for name in ("q", "k")
        )
        weights_HNN = (q_HNK @ k_HNK.mT / math.sqrt(self.attention.head_dim)).softmax(2)
        found = []
        for index, weights_NN in enumerate(weights_HNN):
            target_NN = impulse_matrix(self.grid, offset_of(index))
            found.append(float((weights_NN * target_NN).sum() / target_NN.sum().clamp(min=1.0)))
        return found

    def _table(self, read: Read) -> Tensor | None:
        """Return the network's table of positions (N, d), without the tokens before the grid."""
        if self.attention.table is None:
            return None
        name, position = self.attention.table
        return read(name).view(position.tokens, position.dim)[-self.grid[0] * self.grid[1] :]

    def _sinusoids(self) -> Tensor:
        spec = self.spec
        return sincos2d(self.grid, self.widths[0], layout=spec.layout, temperature=spec.temperature)


def check_peaked(heads: Heads, site: Site, read: Read) -> str:
    """Return a remark on the mean probability of the target.

    Args:
        heads: The heads.
        site: The attention.
        read: Returns the values of a parameter.

    Raises:
        RunError: If the heads that attend to another token are near uniform: their mean probability
            p = N^(s - 1) has s < `PEAKED`. The head of the token itself is peaked on any positions.
    """
    stored = {parameter.local: read(parameter.name) for parameter in site.parameters}
    found = heads.target_probabilities(read_maps(site, stored), read)
    others = [p for index, p in enumerate(found) if offset_of(index) != (0, 0)] or found
    mean, uniform = sum(others) / len(others), 1.0 / math.prod(heads.grid)
    if not mean >= uniform ** (1.0 - PEAKED):
        raise RunError(
            f"{site.layer}: impulse heads give their target a mean probability of {mean:.3g} on the "
            f"network's positions, and uniform attention {uniform:.3g}; use the default `positions: random`, "
            "fill the table with the positions that the rule names, cut their small singular values "
            "(`singular_cut: 0.05`), or use wider heads or a larger `norm`",
            code="MIM-I037",
        )
    return f"mean probability of the target {sum(found) / len(found):.3f}, uniform {uniform:.3g}"


def _impulse_heads(spec: config.ImpulseAttention, site: Site) -> Heads:
    """Return the heads of an attention, whose sizes and positions are checked."""
    attention = attention_of(site)
    if attention.kv_heads < attention.heads:
        raise UserError(
            f"{site.layer}: impulse_attention gives each head another neighbour, but here {attention.heads} "
            f"heads share {attention.kv_heads} keys",
            code="MIM-I033",
        )
    (inputs, keys), values = input_widths(site)
    if inputs != keys:
        raise UserError(
            f"{site.layer}: impulse_attention needs keys of the width of the queries", code="MIM-I034"
        )
    grid = attention.grid if spec.grid is None else spec.grid
    if spec.positions == "sincos2d":
        check_sincos_width(site, inputs, spec.layout)
    elif attention.table is None or attention.table[1].dim != inputs:
        raise UserError(
            f"{site.layer}: impulse_attention fits the network's table of positions, and there is none of "
            f"width {inputs}, or several; use `positions: sincos2d` with the grid of the tokens",
            code="MIM-I038",
        )
    else:
        grid = grid_of(site, attention.table[1], spec.grid)
    if grid is None:
        raise UserError(
            f"{site.layer}: impulse_attention needs the grid of the tokens, and the model has no position "
            "table with one; give it, e.g. `grid: [8, 8]`",
            code="MIM-I032",
        )
    cut = spec.singular_cut
    if cut is None:
        cut = 0.0 if spec.positions == "random" else SINGULAR_CUT
    return Heads(spec, site.layer, attention, (inputs, values), grid, cut)


def offset_of(head: int) -> tuple[int, int]:
    """Return row and column of the neighbour that a head attends to."""
    return OFFSETS[head % len(OFFSETS)]


def impulse_matrix(grid: tuple[int, int], offset: tuple[int, int]) -> Tensor:
    """Return H (N, N): one where the column's token is the row's neighbour, rows outside the grid zero.

    The number of ones is (rows − |m|)·(columns − |n|).
    """
    shifts = [
        torch.diag(torch.ones(max(side - abs(step), 0), dtype=torch.float64), step)
        if abs(step) < side
        else torch.zeros(side, side, dtype=torch.float64)
        for side, step in zip(grid, offset, strict=True)
    ]
    return torch.kron(*shifts)


def impulse_logits(grid: tuple[int, int], offset: tuple[int, int], stream: Generator) -> Tensor:
    """Return the target logits T (N, N) of one head."""
    impulse_NN = impulse_matrix(grid, offset)
    noise_NN = torch.empty_like(impulse_NN)
    nn.init.trunc_normal_(noise_NN, std=IMPULSE_NOISE_STD, generator=stream)
    return IMPULSE_HEIGHT * impulse_NN + IMPULSE_NOISE * noise_NN * (impulse_NN == 0)


def principal(positions_ND: Tensor, rank: int, *, cut: float = 0.0) -> Basis:
    """Return P = U·diag(s)·Vᵀ cut at a rank: U (N, k), s (k,), Vᵀ (k, d); fewer where P has a lower rank.

    Args:
        positions_ND: The position table after the layer norm.
        rank: Width of the head.
        cut: Singular values below this fraction of the largest are left out.
    """
    left_NK, values_K, right_KD = torch.linalg.svd(positions_ND, full_matrices=False)
    rank = min(rank, int((values_K > values_K[0] * max(cut, 1e-10)).sum()))
    return left_NK[:, :rank], values_K[:rank], right_KD[:rank]


def impulse_factors(basis: Basis, logits_NN: Tensor, *, rank: int, norm: float) -> tuple[Tensor, Tensor]:
    """Return W_Q and W_K (d, k) of one head, each of the given Frobenius norm.

    The pulled-back map P⁺·T·P⁺ᵀ is V·C·Vᵀ for a core C = diag(1/s)·Uᵀ·T·U·diag(1/s) of (k, k), so one
    small decomposition is enough.

    Args:
        basis: `principal` of the positions.
        logits_NN: The target T.
        rank: Width of the head.
        norm: Frobenius norm of the results.
    """
    left_NK, values_K, right_KD = basis
    core_KK = (left_NK.T @ logits_NN @ left_NK) / (values_K[:, None] * values_K)
    query_KR, key_RK = balanced(core_KK, rank)
    query_DR, key_DR = right_KD.T @ query_KR, right_KD.T @ key_RK.T
    return norm * query_DR / query_DR.norm(), norm * key_DR / key_DR.norm()
