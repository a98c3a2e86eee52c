"""Mamba and Mamba-2: a small reference, for sequences of tokens, that runs well on a CPU.

Gu and Dao, arXiv 2312.00752, and Dao and Gu, arXiv 2405.21060; names, shapes and the default initialization
are those of github state-spaces/mamba (modules/mamba_simple.py, modules/mamba2.py,
models/mixer_seq_simple.py), so measurements here apply to theirs.

Shapes: N sequences, L tokens, W width, D = 2W inner channels, S states, R rank of the step, H heads of P.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.models import config
from mimetic.models.scan import chunked_scan, scan

_EXPANSION = 2
_TAPS = 4
_STEP_SHORTEST, _STEP_LONGEST = 1e-3, 1e-1
_EPSILON = 1e-5
_EMBEDDING_STD = 0.02
_DECAY_LOWEST, _DECAY_HIGHEST = 1.0, 16.0


class Mamba(nn.Module):
    """Predict the next of a sequence of tokens (N, L); returns logits (N, L, K).

    The layers are `embedding`, `blocks.<i>.{norm,mixer}` and `norm`. The logits are read by the embedding's
    vectors; where answers are others than tokens, by a `head`.
    """

    def __init__(self, *, in_channels: int, num_classes: int, spec: config.Mamba) -> None:
        super().__init__()
        mixer = Mixer1 if spec.version == 1 else Mixer2
        self.embedding = Embedding(in_channels, spec.dim)
        self.blocks = nn.Sequential(*(Block(spec.dim, mixer(spec)) for _ in range(spec.depth)))
        self.norm = nn.RMSNorm(spec.dim, eps=_EPSILON)
        self.head = None if num_classes == in_channels else nn.Linear(spec.dim, num_classes, bias=False)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Return the logits of the token after each."""
        features_NLW = self.norm(self.blocks(self.embedding(tokens_NL)))
        head_KW = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(features_NLW, head_KW)


class Block(nn.Module):
    """x ← x + mixer(norm(x))."""

    def __init__(self, dim: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=_EPSILON)
        self.mixer = mixer

    def forward(self, x_NLW: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x_NLW + self.mixer(self.norm(x_NLW))  # type: ignore[no-any-return]


class Mixer1(nn.Module):
    """Mamba's layer: hₜ = exp(Δₜ A) hₜ₋₁ + Δₜ bₜ xₜ, yₜ = cₜᵀ hₜ + D xₜ, then a gate; every A is its own."""

    def __init__(self, spec: config.Mamba) -> None:
        super().__init__()
        dim, state = spec.dim, spec.state
        inner, rank = _EXPANSION * dim, math.ceil(dim / 16)
        self.splits = (rank, state, state)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, _TAPS, groups=inner, padding=_TAPS - 1)
        self.x_proj = nn.Linear(inner, sum(self.splits), bias=False)
        self.dt_proj = StepProjection(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = OutProjection(inner, dim, spec.depth)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set A = -(1, …, S) in every channel (S4D-Real) and D = 1."""
        self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1).log().expand_as(self.A_log))
        self.D.fill_(1.0)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are not decayed."""
        return {"A_log", "D"}

    def forward(self, u_NLW: Tensor) -> Tensor:
        """Return features of the same shape."""
        x_NLD, gate_NLD = self.in_proj(u_NLW).chunk(2, -1)
        x_NLD = _convolved(self.conv1d, x_NLD)
        rank_NLR, write_NLS, read_NLS = self.x_proj(x_NLD).split(self.splits, -1)
        step_NLD = F.softplus(self.dt_proj(rank_NLR))
        # Tokens first: a step of the scan then reads and writes one piece of memory.
        step_LND, x_LND, write_LNS, read_LNS = (
            values.transpose(0, 1) for values in (step_NLD, x_NLD, write_NLS, read_NLS)
        )
        decay_LNDS = (step_LND[..., None] * -self.A_log.float().exp()).exp()
        states_LNDS = scan(decay_LNDS, (step_LND * x_LND)[..., None] * write_LNS[:, :, None])
        y_NLD = (states_LNDS @ read_LNS[..., None]).squeeze(-1).transpose(0, 1) + self.D * x_NLD
        return self.out_proj(y_NLD * F.silu(gate_NLD))  # type: ignore[no-any-return]


class Mixer2(nn.Module):
    """Mamba-2's layer: the same recurrence with one A for each head; b, c, Δ are read beside x and gate."""

    def __init__(self, spec: config.Mamba) -> None:
        super().__init__()
        dim, state = spec.dim, spec.state
        inner = _EXPANSION * dim
        heads = inner // spec.head_dim
        mixed = inner + 2 * state
        self.splits = [inner, mixed, heads]
        self.mixed = [inner, state, state]
        self.in_proj = nn.Linear(dim, sum(self.splits), bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, _TAPS, groups=mixed, padding=_TAPS - 1)
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.A_log = nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.empty(heads))
        self.norm = nn.RMSNorm(inner, eps=_EPSILON)
        self.out_proj = OutProjection(inner, dim, spec.depth)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw A from -U(1, 16) and Δ log-uniformly from [0.001, 0.1], each head's, and set D = 1."""
        self.A_log.uniform_(_DECAY_LOWEST, _DECAY_HIGHEST).log_()
        self.dt_bias.copy_(_step_bias(self.dt_bias))
        self.D.fill_(1.0)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that are not decayed."""
        return {"A_log", "D", "dt_bias"}

    def forward(self, u_NLW: Tensor) -> Tensor:
        """Return features of the same shape."""
        gate_NLD, mixed, step_NLH = torch.split(self.in_proj(u_NLW), self.splits, -1)
        x_NLD, write_NLS, read_NLS = torch.split(_convolved(self.conv1d, mixed), self.mixed, -1)
        step_NLH = F.softplus(step_NLH + self.dt_bias)
        x_NLHP = x_NLD.view(*x_NLD.shape[:2], self.splits[2], -1)
        y_NLHP = chunked_scan(
            x_NLHP * step_NLH[..., None],
            -step_NLH * self.A_log.float().exp(),
            write_NLS[:, :, None],
            read_NLS[:, :, None],
        )
        y_NLD = (y_NLHP + self.D[:, None] * x_NLHP).flatten(2)
        return self.out_proj(self.norm(y_NLD * F.silu(gate_NLD)))  # type: ignore[no-any-return]


class Embedding(nn.Embedding):
    """Tokens as vectors drawn from N(0, 0.02²)."""

    def reset_parameters(self) -> None:
        """Draw the vectors."""
        nn.init.normal_(self.weight, std=_EMBEDDING_STD)


class StepProjection(nn.Linear):
    """The step's projection: weights from U(±R^-½), biases such that softplus gives Δ in [0.001, 0.1]."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights and biases."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias.copy_(_step_bias(self.bias))


class OutProjection(nn.Linear):
    """The way back to the residual stream, smaller by the root of the number of layers, as in GPT-2."""

    def __init__(self, inner: int, dim: int, depth: int) -> None:
        self.depth = depth
        super().__init__(inner, dim, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw as a linear layer, and scale."""
        super().reset_parameters()
        self.weight.div_(math.sqrt(self.depth))


def _convolved(conv: nn.Conv1d, x_NLD: Tensor) -> Tensor:
    """Return SiLU of a convolution that sees a token and those before it."""
    return F.silu(conv(x_NLD.mT)[..., : x_NLD.shape[1]].mT)


def _step_bias(like: Tensor) -> Tensor:
    """Return softplus⁻¹(Δ) for log-uniform Δ."""
    low, high = math.log(_STEP_SHORTEST), math.log(_STEP_LONGEST)
    step = torch.rand(like.shape).mul_(high - low).add_(low).exp_()
    return step + torch.log(-torch.expm1(-step))
