"""`nn.MultiheadAttention`, also inside `nn.TransformerEncoderLayer` and torchvision's ViT.

Queries, keys and values lie in `in_proj_weight`, or in three tensors where keys or values have another
width; its own parameters, not layers.
"""

from torch import nn

from mimetic.graph.adapters.reading import Found, matrix, slots_of, tensors_of
from mimetic.graph.structure import Attention, Slot

_MAPS = ("q", "k", "v")


def multihead_attention(module: nn.Module) -> Found | None:
    """Recognise torch's own attention."""
    if not isinstance(module, nn.MultiheadAttention):
        return None
    out = matrix(module, "out_proj")
    if out is None:
        return None
    own = {local: p for local, p in module._parameters.items() if p is not None}  # noqa: SLF001
    width, heads = module.embed_dim, module.num_heads
    if "in_proj_weight" in own:
        used = ["in_proj_weight"]
        slots = [Slot(n, "in_proj_weight", i * width, (i + 1) * width) for i, n in enumerate(_MAPS)]
    else:
        used = [f"{n}_proj_weight" for n in _MAPS]
        slots = [Slot(n, f"{n}_proj_weight", 0, width) for n in _MAPS]
    if any(name not in own for name in used):
        return None
    if "in_proj_bias" in own:
        used.append("in_proj_bias")
        slots += [Slot(f"{n}_bias", "in_proj_bias", i * width, (i + 1) * width) for i, n in enumerate(_MAPS)]
    slots += slots_of(out, {"out": out.outputs})
    structure = Attention(tuple(slots), heads, heads, width // heads, width // heads)
    return Found("attention", structure, {**{n: own[n] for n in used}, **tensors_of(out)})
