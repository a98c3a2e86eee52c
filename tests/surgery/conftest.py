"""A small network of ordinary, grouped and pointwise convolutions, and rewrites by mapping."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimetic.recipe.load import load
from mimetic.surgery.rewrite import Rewritten, rewrite_network

EXAMPLE = torch.zeros(2, 3, 8, 8)


class Small(nn.Module):
    """Two spatial convolutions, one of them used twice, a grouped one, a 1×1 one and a head."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 5, padding=2, bias=False)
        self.again = self.body
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.point = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        x = self.again(torch.relu(self.body(torch.relu(self.stem(x)))))
        return self.head(self.point(self.grouped(x)).mean((2, 3)))


@pytest.fixture
def small() -> Small:
    """Return a fresh small network."""
    torch.manual_seed(0)
    return Small()


def operated(model: nn.Module, *rewrites: dict[str, Any], seed: int = 0) -> tuple[Rewritten, ...]:
    """Rewrite a network by rewrites given as mappings, each called by its position."""
    named = [{"id": f"rewrite-{index}", **rewrite} for index, rewrite in enumerate(rewrites)]
    recipe = load({"recipe": 1, "surgery": named})
    return rewrite_network(
        model, recipe.arms["main"].surgery, seed=seed, example=EXAMPLE, at=recipe.address("main")
    )
