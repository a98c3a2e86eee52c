"""A small network with one layer of each kind the plan's tests speak of, and rules by mapping."""

from typing import Any

import pytest
import torch
from torch import nn

from mimetic.graph.sites import find_sites
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load


class Small(nn.Module):
    """Stem, two depthwise filters, a norm, and a head tied to nothing."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def small() -> Small:
    """Return a fresh small network."""
    torch.manual_seed(0)
    return Small()


def plan_of(model: nn.Module, *rules: dict[str, Any], seed: int = 0, **arm: Any) -> Plan:
    """Return the plan of rules given as mappings."""
    recipe = load({"recipe": 1, "name": "test", "init": list(rules), **arm})
    return resolve(recipe.arms["main"], find_sites(model, torch.zeros(2, 3, 8, 8)), seed=seed)
