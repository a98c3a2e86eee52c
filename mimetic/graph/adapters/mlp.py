"""MLP pairs: two linear layers of which the second maps back to the input width of the first."""

from torch import nn

from mimetic.graph.adapters.reading import Found, matrix, slots_of, tensors_of
from mimetic.graph.own import own_children
from mimetic.graph.structure import Mlp

PAIRS: tuple[tuple[str, str], ...] = (
    ("fc1", "fc2"),
    ("linear1", "linear2"),
    ("c_fc", "c_proj"),
    ("lin1", "lin2"),
    ("intermediate.dense", "output.dense"),
    ("up_proj", "down_proj"),
    ("wi", "wo"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("0", "3"),
)
"""Names of the two layers below the module: timm, torch, GPT-2, DistilBERT, BERT and ViT, Llama, T5,
GPT-NeoX, torchvision."""


def mlp(module: nn.Module) -> Found | None:
    """Recognize a pair by names and shapes that agree."""
    for first, second in PAIRS:
        if first.partition(".")[0] not in own_children(module):
            continue
        one, two = matrix(module, first), matrix(module, second)
        if one is None or two is None or (one.outputs, one.inputs) != (two.inputs, two.outputs):
            continue
        if one.inputs == one.outputs and first == "0":
            continue  # any two square layers of a sequence would match
        slots = (*slots_of(one, {"fc1": one.outputs}), *slots_of(two, {"fc2": two.outputs}))
        gate = ("gated: a third layer multiplies",) if "gate_proj" in own_children(module) else ()
        return Found("mlp", Mlp(slots, gate), tensors_of(one, two))
    return None
