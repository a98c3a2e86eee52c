"""Adapters: functions that recognize a composite site in a module by names and shapes that agree.

None of them imports the library whose layers it recognizes. An adapter takes any module and returns what it
found, or None; to add one, add it to `ADAPTERS`.
"""

from collections.abc import Callable

from torch import nn

from mimetic.graph.adapters.attention import fused_attention, multihead_attention, split_attention
from mimetic.graph.adapters.mamba import mamba, mamba2
from mimetic.graph.adapters.mlp import mlp
from mimetic.graph.adapters.reading import Found

ADAPTERS: tuple[Callable[[nn.Module], Found | None], ...] = (
    multihead_attention,
    fused_attention,
    split_attention,
    mamba,
    mamba2,
    mlp,
)
"""Tried in this order; the first that recognizes a module wins."""
