"""What stands for all outputs of a linear head when gradients are sent back.

Shapes: K outputs, D features of the head, C cotangents.
"""

import torch
from torch import Tensor, nn

from mimetic.covariance.capture import capture, run_forward


def output_basis(head_KD: Tensor, *, energy: float = 1.0) -> tuple[Tensor, float]:
    """Return cotangents (C, K) that stand for all outputs of a linear head, and the energy they keep.

    For logits A·h + b, Σ_o ∇f_o∇f_oᵀ depends on AᵀA alone, so the left singular vectors of A do for the K
    unit vectors: C = min(K, D) of them exactly, the leading ones for a share of ‖A‖²_F.

    Args:
        head_KD: Weight of the last layer.
        energy: Share of ‖A‖²_F to keep, in (0, 1].
    """
    left_KC, values_C, _ = torch.linalg.svd(head_KD.detach().double(), full_matrices=False)
    shares = values_C.square().cumsum(0) / values_C.square().sum()
    count = min(int((shares < energy - 1e-12).sum()) + 1, len(values_C))
    return left_KC[:, :count].T.contiguous(), float(shares[count - 1])


def linear_head(model: nn.Module, example: Tensor) -> str | None:
    """Return the name of the linear layer whose output is the model's output, or None."""
    outputs: dict[str, Tensor] = {}

    def note(name: str, _input: Tensor, output: Tensor) -> None:
        outputs[name] = output

    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    with capture(linear, note):
        result = run_forward(model, example, origin="the network")
    return next((name for name, output in outputs.items() if output is result), None)
