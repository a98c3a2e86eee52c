"""Adapters: functions that recognise a composite site in a module by attributes and shapes that agree.

None of them imports the library whose layers it knows. A new kind of site adds a file here and a line
below; a function gets any module and returns what it found, or None.
"""

from collections.abc import Callable

from torch import nn

from mimetic.graph.adapters.fused import fused_attention
from mimetic.graph.adapters.mamba import mamba, mamba2
from mimetic.graph.adapters.mlp import mlp
from mimetic.graph.adapters.multihead import multihead_attention
from mimetic.graph.adapters.position import position_layer, position_parameters
from mimetic.graph.adapters.reading import Found
from mimetic.graph.adapters.split import split_attention

ADAPTERS: tuple[Callable[[nn.Module], Found | None], ...] = (
    multihead_attention,
    fused_attention,
    split_attention,
    mamba,
    mamba2,
    mlp,
)
"""What may make a module a composite site of its own; the first that recognises it is believed."""

__all__ = ["ADAPTERS", "Found", "position_layer", "position_parameters"]
