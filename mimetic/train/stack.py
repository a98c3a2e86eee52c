"""A stack: several networks of one architecture as one set of tensors, and what cannot be one.

Their parameters lie stacked along a new first dimension S, and forward and backward run under
`torch.func.vmap`; the idea is that of HFTA (Wang et al. 2021, arXiv 2102.02344). Each network's own
parameters are views of its rows.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F  # noqa: N812 (torch's own custom)

from mimetic.errors import UserError
from mimetic.train.batches import reader, rows
from mimetic.train.begin import CHECKPOINT, WEIGHTS
from mimetic.train.config import Adam, AdamW, RmsProp, Sgd
from mimetic.train.devices import autocast, pick_device, pick_precision
from mimetic.train.work import Work

ELEMENTWISE = (Sgd, Adam, AdamW, RmsProp)
"""Optimizers that treat every number by itself, stacked or not."""


class Stack:
    """The parameters and buffers of several networks as one set of tensors (S, …).

    Args:
        models: Networks with the same names and shapes, on one device; their tensors become views.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models
        self.parameters = {
            name: nn.Parameter(_stacked(models, name), requires_grad=parameter.requires_grad)
            for name, parameter in models[0].named_parameters()
        }
        self.buffers = {name: _stacked(models, name) for name, _ in models[0].named_buffers()}
        for row, model in enumerate(models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.data = (self.parameters | self.buffers)[name].data[row]

    def losses(self, inputs_SB: Tensor, targets_SB: Tensor, *, smoothing: float) -> tuple[Tensor, Tensor]:
        """Return each network's loss (S,) and its logits (S, N, K), rows of sequences flattened.

        Running statistics are updated in place.
        """

        def one(
            parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
        ) -> tuple[Tensor, Tensor]:
            logits = functional_call(self.models[0], (dict(parameters), dict(buffers)), (inputs,))
            logits, targets = rows(logits, targets)
            return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing), logits

        return vmap(one)(self.parameters, self.buffers, inputs_SB, targets_SB)

    def clip(self, norm: float) -> None:
        """Scale each network's gradient to a norm of at most so much."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        squares_S = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        scale_S = (norm / (squares_S.sqrt() + 1e-6)).clamp(max=1.0)  # as `nn.utils.clip_grad_norm_`
        for gradient in gradients:
            gradient.mul_(scale_S.view(-1, *[1] * (gradient.ndim - 1)))


def _stacked(models: Sequence[nn.Module], name: str) -> Tensor:
    tensors = [dict((*model.named_parameters(), *model.named_buffers()))[name] for model in models]
    return torch.stack([tensor.detach().contiguous() for tensor in tensors])


class Share:
    """One network's share of the optimizer, as a checkpoint keeps it."""

    def __init__(self, optimizer: torch.optim.Optimizer, row: int) -> None:
        self.optimizer, self.row = optimizer, row

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a network's own parameters; counts of steps are common."""
        state = self.optimizer.state_dict()["state"]
        own = {
            number: {k: v[self.row] if isinstance(v, Tensor) and v.ndim else v for k, v in values.items()}
            for number, values in state.items()
        }
        return {"state": own}


def reason_against(works: Sequence[Work]) -> str | None:
    """Return why networks cannot be trained as one; None where they can."""
    first, optimizer = works[0], works[0].spec.optimizer
    kept = (work.folder / file for work in works for file in (CHECKPOINT, WEIGHTS))
    outline = _outline(first)
    reasons = {
        "it is the only one of its kind": len(works) == 1,
        f"`{optimizer.type_name()}` may not act on each number by itself": type(optimizer) not in ELEMENTWISE,
        "`train.compile` is on": first.spec.compile is True,
        "a trial is profiled": any(work.profiler is not None for work in works),
        "a trial goes on at a checkpoint": any(path.exists() for path in kept),
        "shapes differ, or what is frozen": any(_outline(work) != outline for work in works),
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    return _refusal(works) if found is None else found


def _outline(work: Work) -> list[object]:
    """Return the names, shapes and kinds of a network's tensors and layers, and which statistics are held."""
    tensors = (*work.model.named_parameters(), *work.model.named_buffers())
    outline: list[object] = [(n, t.shape, t.dtype, t.requires_grad) for n, t in tensors]
    return [*outline, *((name, type(layer)) for name, layer in work.model.named_modules()), *work.held]


def _refusal(works: Sequence[Work]) -> str | None:
    """Return what vmap says to two networks and two images, forward and backward; None if it computes them.

    Dropout and the like are refused: their draws would not be those of a network by itself. So is what vmap
    would compute network by network, for want of a rule, since that gains nothing. Asked on the device and in
    the arithmetic of the training, whose kernels may have no rule where others have one.
    """
    model, spec = works[0].model, works[0].spec
    model.train()
    pair = [model, model]

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(model, (parameters, buffers), (inputs,))  # type: ignore[no-any-return]

    try:
        device = pick_device(spec.device)
        inputs = works[0].dataset.train.inputs[:2].to(device)
        inputs = reader(works[0].dataset, device=device, channels_last=False)(inputs)
        parameters = {n: _stacked(pair, n).to(device).requires_grad_() for n, _ in model.named_parameters()}
        buffers = {name: _stacked(pair, name).to(device) for name, _ in model.named_buffers()}
        with warnings.catch_warnings(), autocast(pick_precision(spec.precision, device), device):
            warnings.filterwarnings("error", message="There is a performance drop")
            answers = vmap(one)(parameters, buffers)
            answers.float().sum().backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError, TypeError, ValueError, UserWarning, UserError) as error:
        return f"torch.func.vmap refuses the network: {' '.join(str(error).split())[:160]}"
    return None
