"""Attention with a layer for each map: transformers' ViT, DeiT, BERT, T5, and Llama with grouped queries.

Heads and their widths are believed only if they agree with the shapes of all four layers.
"""

from torch import nn

from mimetic.graph.adapters.fused import remarks
from mimetic.graph.adapters.reading import (
    HEAD_DIM,
    HEADS,
    Found,
    Matrix,
    child,
    first_matrix,
    matrix,
    number,
    slots_of,
    tensors_of,
)
from mimetic.graph.structure import Attention, head_sizes

NAMES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("q_proj", "k_proj", "v_proj", ("o_proj", "out_proj", "proj")),
    ("self.query", "self.key", "self.value", ("output.dense",)),
    ("attention.query", "attention.key", "attention.value", ("output.dense",)),
    ("query", "key", "value", ("out", "proj", "dense", "out_proj")),
    ("q_lin", "k_lin", "v_lin", ("out_lin",)),
    ("to_q", "to_k", "to_v", ("to_out", "to_out.0")),
    ("q", "k", "v", ("o", "proj", "out")),
    ("wq", "wk", "wv", ("wo",)),
)
"""Paths of the four layers below the module."""


def split_attention(module: nn.Module) -> Found | None:
    """Recognise four linear layers whose shapes agree with the heads the module declares."""
    for q_name, k_name, v_name, outs in NAMES:
        if q_name.partition(".")[0] not in module._modules:  # noqa: SLF001
            continue
        q, k, v = (matrix(module, name) for name in (q_name, k_name, v_name))
        out = first_matrix(module, outs)
        if q is not None and k is not None and v is not None and out is not None:
            holder = child(module, q_name.rpartition(".")[0]) if "." in q_name else module
            declaring = (module,) if holder is None else (module, holder)
            notes = tuple(dict.fromkeys(note for place in declaring for note in remarks(place)))
            return _agreed((q, k, v, out), declaring, notes)
    return None


def _agreed(
    maps: tuple[Matrix, Matrix, Matrix, Matrix], declaring: tuple[nn.Module, ...], notes: tuple[str, ...]
) -> Found | None:
    """Return the attention four layers make, None if their shapes contradict heads and width."""
    q, k, v, out = maps
    sizes = head_sizes(
        (q.outputs, k.outputs, v.outputs, out.inputs),
        heads=number(declaring, HEADS),
        width=number(declaring, HEAD_DIM),
    )
    if sizes is None:
        return None
    slots = [
        slot
        for name, layer in zip(("q", "k", "v", "out"), maps, strict=True)
        for slot in slots_of(layer, {name: layer.outputs})
    ]
    return Found("attention", Attention(tuple(slots), *sizes, notes=notes), tensors_of(*maps))
