"""Attention of torch, timm, torchvision's Swin, GPT-2 and transformers, in three storage forms.

`nn.MultiheadAttention` stores queries, keys and values as its own parameters; *fused* attention in one linear
layer, queries before keys before values, each head by head; *split* attention in one linear layer per map.
Heads and widths are accepted only if they agree with the shapes of all layers.
"""

from torch import nn

from mimetic.graph.adapters.reading import (
    HEAD_DIM,
    HEADS,
    Found,
    child,
    first_matrix,
    matrix,
    number,
    slots_of,
    tensors_of,
)
from mimetic.graph.computed import tensors_of_layer
from mimetic.graph.own import own_children, own_parameters
from mimetic.graph.structure import Attention, Slot, head_sizes

FUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qkv", ("proj",)),
    ("c_attn", ("c_proj",)),
    ("to_qkv", ("to_out", "to_out.0")),
    ("Wqkv", ("out_proj",)),
)
"""Names of the fused layer and of the projection."""

SPLIT: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
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


def multihead_attention(module: nn.Module) -> Found | None:
    """Recognize `nn.MultiheadAttention`, also inside `nn.TransformerEncoderLayer` and torchvision's ViT.

    Its maps are in `in_proj_weight`, or in three tensors if keys or values have another width.
    """
    if not isinstance(module, nn.MultiheadAttention):
        return None
    out = matrix(module, "out_proj")
    if out is None:
        return None
    own = tensors_of_layer(module)
    width, heads = module.embed_dim, module.num_heads
    if "in_proj_weight" in own:
        used = ["in_proj_weight"]
        slots = [Slot(n, "in_proj_weight", i * width, (i + 1) * width) for i, n in enumerate("qkv")]
    else:
        used = [f"{n}_proj_weight" for n in "qkv"]
        slots = [Slot(n, f"{n}_proj_weight", 0, width) for n in "qkv"]
    if any(name not in own for name in used):
        return None
    if "in_proj_bias" in own:
        used.append("in_proj_bias")
        slots += [Slot(f"{n}_bias", "in_proj_bias", i * width, (i + 1) * width) for i, n in enumerate("qkv")]
    slots += slots_of(out, {"out": out.outputs})
    structure = Attention(tuple(slots), heads, heads, width // heads, width // heads)
    return Found("attention", structure, {**{n: own[n] for n in used}, **tensors_of(out)})


def fused_attention(module: nn.Module) -> Found | None:
    """Recognize a fused layer with its projection: 3·H·k outputs, and H·k inputs of the projection.

    Layouts that the shapes would hide are refused: MaxViT may store head by head first, and cross-covariance
    attention (XCiT), which has a temperature, mixes channels instead of tokens.
    """
    for name, outs in FUSED:
        if name not in own_children(module):
            continue
        parameters = tensors_of_layer(module)
        qkv, out, heads = matrix(module, name), first_matrix(module, outs), number((module,), HEADS)
        if qkv is None or out is None or heads is None or module.__dict__.get("head_first") is True:
            return None
        width = out.inputs
        if parameters.get("temperature") is not None or qkv.outputs != 3 * width or width % heads:
            return None
        slots = [*slots_of(qkv, {"q": width, "k": width, "v": width}), *slots_of(out, {"out": out.outputs})]
        tensors = tensors_of(qkv, out)
        for local in ("q_bias", "k_bias", "v_bias"):  # BEiT and EVA store these separately
            bias = parameters.get(local)
            if bias is not None and qkv.bias is None and bias.shape == (width,):
                slots.append(Slot(local, local, 0, width))
                tensors[local] = bias
        sizes = (heads, heads, width // heads, width // heads)
        return Found("attention", Attention(tuple(slots), *sizes, notes=_notes(module)), tensors)
    return None


def split_attention(module: nn.Module) -> Found | None:
    """Recognize four linear layers whose shapes agree with the declared heads, grouped queries included."""
    for q_name, k_name, v_name, outs in SPLIT:
        if q_name.partition(".")[0] not in own_children(module):
            continue
        q, k, v = (matrix(module, name) for name in (q_name, k_name, v_name))
        out = first_matrix(module, outs)
        if q is None or k is None or v is None or out is None:
            continue
        holder = child(module, q_name.rpartition(".")[0]) if "." in q_name else None
        declaring = (module,) if holder is None else (module, holder)
        # Heads and widths count only if they agree with the shapes of all four layers.
        sizes = head_sizes(
            (q.outputs, k.outputs, v.outputs, out.inputs),
            heads=number(declaring, HEADS),
            width=number(declaring, HEAD_DIM),
        )
        if sizes is None:
            return None
        maps = {"q": q, "k": k, "v": v, "out": out}
        slots = [slot for name, layer in maps.items() for slot in slots_of(layer, {name: layer.outputs})]
        notes = tuple(dict.fromkeys(note for place in declaring for note in _notes(place)))
        return Found("attention", Attention(tuple(slots), *sizes, notes=notes), tensors_of(*maps.values()))
    return None


def _notes(module: nn.Module) -> tuple[str, ...]:
    """Return what changes the meaning of the product of queries and keys: a norm, or cosines (Swin v2)."""
    norms = (own_children(module).get(name) for name in ("q_norm", "k_norm"))
    normed = any(norm is not None and not isinstance(norm, nn.Identity) for norm in norms)
    if normed or own_parameters(module).get("logit_scale") is not None:
        return ("queries and keys are normalized: their product is not the attention's map",)
    return ()
