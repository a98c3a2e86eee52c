"""Attention whose queries, keys and values come from one linear layer: timm, torchvision's Swin, GPT-2.

The outputs are queries, then keys, then values, each head by head. Modules that store them otherwise
(head by head first) say so in an attribute, or use other names, and are left alone.
"""

from torch import nn

from mimetic.graph.adapters.reading import (
    HEADS,
    Found,
    Matrix,
    first_matrix,
    matrix,
    number,
    slots_of,
    tensors_of,
)
from mimetic.graph.structure import Attention, Slot

PAIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qkv", ("proj",)),
    ("c_attn", ("c_proj",)),
    ("to_qkv", ("to_out", "to_out.0")),
    ("Wqkv", ("out_proj",)),
)
"""Names of the fused layer and of the projection."""


def fused_attention(module: nn.Module) -> Found | None:
    """Recognise a fused `qkv` with its projection: 3·H·k outputs, and H·k inputs of the projection."""
    for name, outs in PAIRS:
        if name not in module._modules:  # noqa: SLF001
            continue
        qkv, out = matrix(module, name), first_matrix(module, outs)
        heads = number((module,), HEADS)
        if qkv is None or out is None or heads is None or _otherwise(module):
            return None
        if qkv.outputs != 3 * out.inputs or out.inputs % heads:
            return None
        return _found(module, qkv, out, heads)
    return None


def _found(module: nn.Module, qkv: Matrix, out: Matrix, heads: int) -> Found:
    width = out.inputs
    slots = [*slots_of(qkv, {"q": width, "k": width, "v": width}), *slots_of(out, {"out": out.outputs})]
    tensors = tensors_of(qkv, out)
    for name in ("q_bias", "k_bias", "v_bias"):  # BEiT and EVA keep these apart
        bias = module._parameters.get(name)  # noqa: SLF001
        if bias is not None and qkv.bias is None and bias.shape == (width,):
            slots.append(Slot(name, name, 0, width))
            tensors[name] = bias
    structure = Attention(tuple(slots), heads, heads, width // heads, width // heads, notes=remarks(module))
    return Found("attention", structure, tensors)


def _otherwise(module: nn.Module) -> bool:
    """Tell a layout or a kind of attention that the shapes alone would hide.

    MaxViT may store head by head first; cross-covariance attention (XCiT) mixes channels, not tokens.
    """
    attributes, parameters = module.__dict__, module._parameters  # noqa: SLF001
    return attributes.get("head_first") is True or parameters.get("temperature") is not None


def remarks(module: nn.Module) -> tuple[str, ...]:
    """Return what changes the meaning of the product of queries and keys: a norm, or cosines (Swin v2)."""
    norms = (module._modules.get(name) for name in ("q_norm", "k_norm"))  # noqa: SLF001
    normed = any(norm is not None and not isinstance(norm, nn.Identity) for norm in norms)
    if normed or module._parameters.get("logit_scale") is not None:  # noqa: SLF001
        return ("queries and keys are normalized: their product is not the attention's map",)
    return ()
