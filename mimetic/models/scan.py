"""The recurrences of selective state space models, in plain PyTorch.

hₜ = aₜ hₜ₋₁ + bₜ with h₀ = 0: Mamba-1 has one for each channel and state (Gu and Dao, arXiv 2312.00752),
Mamba-2 one decay per head, which turns a chunk of the sequence into a few matrix products (Dao and Gu,
arXiv 2405.21060, §6).

Shapes: N sequences, L tokens, D channels, S states, H heads, P channels per head, C chunks of T tokens.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

CHUNK = 64
"""Tokens of a chunk: within one, work grows with the square of this; memory falls with it across chunks."""


def scan(decay_LX: Tensor, input_LX: Tensor) -> Tensor:
    """Return h of hₜ = aₜ hₜ₋₁ + bₜ for all t, token by token.

    Each step is one fused operation over all of X, in place: on a CPU faster than any parallel
    scan, which moves the memory log L times.

    Args:
        decay_LX: aₜ, the tokens first.
        input_LX: bₜ, of the same shape.
    """
    states: Tensor = _Scan.apply(decay_LX, input_LX)
    return states


class _Scan(torch.autograd.Function):
    """With gₜ the gradient at hₜ from there on, gₜ = ∂hₜ + aₜ₊₁ gₜ₊₁, ∂bₜ = gₜ and ∂aₜ = gₜ hₜ₋₁."""

    @staticmethod
    def forward(ctx: Any, decay_LX: Tensor, input_LX: Tensor) -> Tensor:
        """Run the recurrence forward."""
        states_LX = input_LX.clone(memory_format=torch.contiguous_format)
        for t in range(1, len(states_LX)):
            states_LX[t].addcmul_(decay_LX[t], states_LX[t - 1])
        ctx.save_for_backward(decay_LX, states_LX)
        return states_LX

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Run it backward."""
        decay_LX, states_LX = ctx.saved_tensors
        through_LX = gradients[0].clone(memory_format=torch.contiguous_format)
        for t in range(len(through_LX) - 2, -1, -1):
            through_LX[t].addcmul_(decay_LX[t + 1], through_LX[t + 1])
        to_decay_LX = torch.zeros_like(decay_LX)
        torch.mul(through_LX[1:], states_LX[:-1], out=to_decay_LX[1:])
        return to_decay_LX, through_LX


def chunked_scan(
    input_NLHP: Tensor, log_decay_NLH: Tensor, write_NLHS: Tensor, read_NLHS: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Return yₜ = cₜᵀ Hₜ with Hₜ = exp(lₜ) Hₜ₋₁ + bₜ xₜᵀ, Mamba-2's recurrence, chunk by chunk.

    Within a chunk y = (D ∘ C Bᵀ) x with D[t, s] = exp(Σ_{s<r≤t} lᵣ); chunks hand on their last state.

    Args:
        input_NLHP: xₜ of each head.
        log_decay_NLH: lₜ ≤ 0.
        write_NLHS: bₜ, of each head or of all together (H = 1).
        read_NLHS: cₜ, likewise.
        chunk: Tokens of a chunk; the result does not depend on it but for rounding.
    """
    length = input_NLHP.shape[1]
    chunk = min(chunk, length)
    x_NCHTP, b_NCHTS, c_NCHTS, l_NCHT1 = (
        _chunks(values, chunk) for values in (input_NLHP, write_NLHS, read_NLHS, log_decay_NLH[..., None])
    )
    total_NCHT = l_NCHT1[..., 0].cumsum(-1)
    later_TT = torch.ones(chunk, chunk, dtype=torch.bool, device=input_NLHP.device).triu(1)
    gap_NCHTT = total_NCHT[..., :, None] - total_NCHT[..., None, :]
    decay_NCHTT = gap_NCHTT.masked_fill(later_TT, -math.inf).exp()
    y_NCHTP = (c_NCHTS @ b_NCHTS.mT * decay_NCHTT) @ x_NCHTP
    if x_NCHTP.shape[1] > 1:
        end_NCH1 = total_NCHT[..., -1:]
        left_NCHSP = (b_NCHTS * (end_NCH1 - total_NCHT).exp()[..., None]).mT @ x_NCHTP
        initial_NCHSP = _handed_on(left_NCHSP, end_NCH1.exp()[..., None])
        y_NCHTP = y_NCHTP + (c_NCHTS @ initial_NCHSP) * total_NCHT.exp()[..., None]
    return y_NCHTP.transpose(2, 3).flatten(1, 2)[:, :length]


def _chunks(values_NLHX: Tensor, chunk: int) -> Tensor:
    """Cut sequences into chunks, the last one filled up with zeros: (N, C, H, T, X)."""
    length = values_NLHX.shape[1]
    filled = F.pad(values_NLHX, (0, 0, 0, 0, 0, -length % chunk))
    return filled.view(len(filled), -1, chunk, *filled.shape[2:]).transpose(2, 3)


def _handed_on(left_NCHSP: Tensor, decay_NCH11: Tensor) -> Tensor:
    """Return the initial state of each chunk, from the state that each would leave by itself."""
    state_NHSP = torch.zeros_like(left_NCHSP[:, 0])
    initial = []
    for left, decay in zip(left_NCHSP.unbind(1), decay_NCH11.unbind(1), strict=True):
        initial.append(state_NHSP)
        state_NHSP = state_NHSP * decay + left
    return torch.stack(initial, 1)
