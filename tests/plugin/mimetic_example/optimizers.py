"""Steps by the sign of the gradient."""

from typing import Any

import torch

from mimetic_example.config import SignSgd


class _SignSgd(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, _closure: Any = None) -> None:
        """Move every parameter by ± the learning rate, after decoupled weight decay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * parameter.grad.sign())


def sign_sgd(spec: SignSgd, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer over parameter groups; it has no state."""
    return _SignSgd(groups, {"lr": spec.lr, "weight_decay": 0.0})
