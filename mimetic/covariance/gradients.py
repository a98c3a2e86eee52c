"""Gram matrices of pre-activation gradients, for all layers from one backward pass.

With z = W·p (+ b) the pre-activation at one position and p its patch, the gradient of an output f_o with
respect to the patch is Wᵀδ, δ = ∂f_o/∂z. The patch-AGOP of a layer (arXiv 2309.00570) is therefore

    AGOP = Wᵀ·S·W,   S = Σ_images Σ_positions Σ_outputs δδᵀ,

an exact identity: only the C_out×C_out matrices S need data, and neither patches nor d×d matrices appear.

Exact mode sends every output back. Probe mode sends random signs v back, f ↦ Σ_o v_o·f_o with one draw per
image: E[δ_v δ_vᵀ] = Σ_o δ_o δ_oᵀ, one backward per probe whatever the number of outputs (Hutchinson).

Shapes: N images, K outputs, C cotangents, G groups, O outputs of a group, M positions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mimetic.covariance.capture import capture, eval_mode
from mimetic.errors import UserError
from mimetic.streams import generator


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """The Gram matrix of one layer's pre-activation gradients.

    Attributes:
        gram_GOO: S per group, float64 on the CPU; one group for layers without.
        images: Number of images it is summed over.
        probes: Random probes per image; None where all outputs were sent back.
    """

    gram_GOO: Tensor
    images: int
    probes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cotangents:
    """What is sent back from the outputs.

    Attributes:
        outputs: Take the first so many outputs only.
        probes: Send back so many random sign vectors per image instead of all outputs.
        seed: Seed of the probes, keyed by batch and probe.
    """

    outputs: int | None = None
    probes: int | None = None
    seed: int = 0

    def of(self, logits_NK: Tensor, batch: int) -> list[Tensor]:
        """Return cotangents of the shape of the logits of a batch, one per backward."""
        images, all_outputs = logits_NK.shape
        count = all_outputs if self.outputs is None else min(self.outputs, all_outputs)
        basis_CK = torch.eye(count, all_outputs, dtype=logits_NK.dtype, device=logits_NK.device)
        if self.probes is None:
            return [row_K.expand_as(logits_NK) for row_K in basis_CK]
        streams = (generator(self.seed, "probe", batch, probe) for probe in range(self.probes))
        signs = (torch.randint(0, 2, (images, count), generator=stream) for stream in streams)
        return [(2 * bits - 1).to(logits_NK) @ basis_CK for bits in signs]


def gradient_grams(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Tensor],
    cotangents: Cotangents | None = None,
    *,
    drop_bias: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Gram]:
    """Return the Gram matrices S of layers, summed over images, positions and outputs.

    The model runs in eval mode (dropout off, BatchNorm by its running statistics), and its parameters,
    gradients and flags are as before afterwards. Batches are streamed: memory is that of one.

    Args:
        model: Maps a batch to a tensor whose first axis is the images; the rest are its outputs.
        layers: Names of convolutions and linear layers.
        batches: Inputs, on the model's device.
        cotangents: What is sent back; every output by itself unless given.
        drop_bias: Leave out each layer's own bias while its gradient is taken, as the published scripts of
            arXiv 2309.00570 do. One forward per layer then, for comparison with them only.
        progress: Called with the number of images after each batch.

    Raises:
        UserError: If a layer is never called, the output is no tensor of finite numbers, or a gradient is
            not finite.
    """
    everything = dict(model.named_modules())
    modules = {name: everything[name] for name in layers}
    sums = {name: _zeros(module) for name, module in modules.items()}
    # A layer without its bias changes those behind it, so each such layer needs its own forward.
    passes = [{name: module} for name, module in modules.items()] if drop_bias else [modules]
    cotangents = Cotangents() if cotangents is None else cotangents
    images = 0
    with eval_mode(model):
        for index, batch in enumerate(batches):
            sent = partial(cotangents.of, batch=index)
            for watched in passes:
                for name, gram_GOO in _grams(model, watched, batch, sent, drop_bias=drop_bias):
                    sums[name] += gram_GOO
            images += len(batch)
            if progress is not None:
                progress(images)
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise UserError(
                f"{name}: its gradients are not finite; check the weights, the data and the precision",
                code="MIM-V162",
            )
    scale = 1.0 if cotangents.probes is None else 1.0 / cotangents.probes
    return {name: Gram((scale * total).cpu(), images, cotangents.probes) for name, total in sums.items()}


def _grams(
    model: nn.Module,
    watched: Mapping[str, nn.Module],
    batch: Tensor,
    cotangents: Callable[[Tensor], list[Tensor]],
    *,
    drop_bias: bool,
) -> Iterator[tuple[str, Tensor]]:
    """Yield Σ δδᵀ of each watched layer, once per call and cotangent, from one forward pass.

    The graph of a batch and its gradients are local to this function: they are freed before the next forward.
    """
    points, logits_NK = _differentiable(model, watched, batch, drop_bias=drop_bias)
    tensors = [point for _, point in points]
    sent = cotangents(logits_NK)
    for left, cotangent in zip(range(len(sent) - 1, -1, -1), sent, strict=True):
        gradients = torch.autograd.grad(
            logits_NK, tensors, cotangent, retain_graph=left > 0, allow_unused=True
        )
        for (name, _), gradient in zip(points, gradients, strict=True):
            if gradient is not None:
                yield name, _gram(gradient, watched[name])


def _differentiable(
    model: nn.Module, watched: Mapping[str, nn.Module], batch: Tensor, *, drop_bias: bool
) -> tuple[list[tuple[str, Tensor]], Tensor]:
    """Return the outputs of the watched layers, by name, and the logits (N, K) of one forward pass."""
    points: list[tuple[str, Tensor]] = []

    def differentiate_at(name: str, _input: Tensor, output: Tensor) -> Tensor:
        point = output - _bias(watched[name]) if drop_bias else output
        if not point.requires_grad:  # the first layers become leaves of the graph
            point = point.detach().requires_grad_()
        points.append((name, point))
        return point.clone()  # protects the point from an in-place activation

    with torch.enable_grad(), capture(watched, differentiate_at):
        # Detached parameters: no weight gradients, and no inputs saved for them.
        frozen = {name: value.detach() for name, value in model.named_parameters()}
        result = functional_call(model, frozen, (batch,))
    logits_NK = _logits(result, len(batch))
    missing = sorted(set(watched) - {name for name, _ in points})
    if missing:
        raise UserError(
            f"{missing[0]}: the forward pass never calls this layer; leave it out",
            code="MIM-V164",
        )
    return points, logits_NK


def _bias(module: nn.Module) -> Tensor | float:
    """Return a layer's bias in a shape that broadcasts over its output; 0 without one."""
    bias = module.bias
    if not isinstance(bias, Tensor):
        return 0.0
    return bias if isinstance(module, nn.Linear) else bias.view(-1, *[1] * len(module.kernel_size))  # type: ignore[arg-type]


def _gram(gradient: Tensor, module: nn.Module) -> Tensor:
    """Return Σ δδᵀ (groups, O, O) of gradients whose channels are the second axis, or the last for linear."""
    if isinstance(module, nn.Linear):
        delta_GOM = gradient.flatten(0, -2).T.unsqueeze(0)
        return (delta_GOM @ delta_GOM.mT).double()
    delta_NCM = gradient.flatten(2)
    images, channels, positions = delta_NCM.shape
    groups = _groups(module)
    outputs = channels // groups
    if positions >= outputs:
        delta_NGOM = delta_NCM.reshape(images, groups, outputs, positions)
        return (delta_NGOM @ delta_NGOM.mT).double().sum(dim=0)
    delta_GOM = delta_NCM.transpose(0, 1).reshape(groups, outputs, -1)
    return (delta_GOM @ delta_GOM.mT).double()


def _groups(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.Linear) else module.groups  # type: ignore[return-value]


def _zeros(module: nn.Module) -> Tensor:
    groups = _groups(module)
    outputs = len(module.weight) // groups  # type: ignore[arg-type]
    device = module.weight.device
    return torch.zeros(groups, outputs, outputs, dtype=torch.float64, device=device)  # type: ignore[arg-type]


def _logits(result: Any, images: int) -> Tensor:
    if not isinstance(result, Tensor) or result.ndim < 2 or len(result) != images:  # noqa: PLR2004
        kind = type(result).__name__ if not isinstance(result, Tensor) else f"shape {tuple(result.shape)}"
        raise UserError(
            f"the model returns {kind}; gradients need a tensor (images, outputs)",
            code="MIM-V167",
        )
    if not bool(torch.isfinite(result).all()):
        raise UserError(
            "the model's outputs are not finite; check its weights and the data",
            code="MIM-V168",
        )
    return result.flatten(1)
