"""Draws that fill many layers at once: carried out on a copy of the network, after all others.

What they fill depends on the network around it, so it is done where the other draws are already written; the
live network is written only when everything is there.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mimetic.errors import UserError
from mimetic.graph.names import canonical_buffers, canonical_modules, canonical_parameters
from mimetic.plans.entry import Action
from mimetic.streams import generator


def filled_together(
    model: nn.Module, actions: Sequence[Action], drawn: Mapping[str, Tensor], *, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """Return what the joint draws of a plan fill.

    Args:
        model: The live network; unchanged.
        actions: The plan's draws; those without a joint part are passed over.
        drawn: What the other draws gave, by canonical parameter name.
        seed: Seed of the run.

    Returns:
        Parameters, and the buffers that changed with them (norm statistics), by canonical name; and remarks
        by the name of a layer's first parameter.

    Raises:
        UserError: If the network is sharded, or cannot be copied or run.
    """
    groups: dict[tuple[bool, str], list[Action]] = {}
    for action in actions:
        if action.draw.joint is not None:
            groups.setdefault((action.draw.joint.last, action.draw.joint.key), []).append(action)
    if not groups:
        return {}, {}, {}
    network = _copied(model, drawn)
    parameters, buffers = canonical_parameters(network), canonical_buffers(network)
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    remarks: dict[str, str] = {}
    for _, group in sorted(groups.items(), key=lambda item: item[0][0]):
        joint = group[0].draw.joint
        assert joint is not None
        owners = {action.layer: next(iter(action.parameters.values())) for action in group}
        shares = {action.layer: action.draw.joint.share for action in group if action.draw.joint is not None}
        said = joint.fill(network, shares, lambda name, slot: generator(seed, name, slot))
        remarks |= {owners[layer]: remark for layer, remark in said.items()}
    named = [name for group in groups.values() for action in group for name in action.parameters.values()]
    changed = {name: b for name, b in buffers.items() if not torch.equal(before[name], b)}
    return {name: parameters[name].detach().contiguous() for name in named}, changed, remarks


@torch.no_grad()
def _copied(model: nn.Module, drawn: Mapping[str, Tensor]) -> nn.Module:
    """Return the network without its wrappers, float32 on the CPU, with the other draws written."""
    inner = canonical_modules(model)[""]
    if any(getattr(parameter, "placements", None) is not None for parameter in inner.parameters()):
        raise UserError(
            "a network is resampled as a whole, and this one is sharded; initialize it before it is sharded"
        )
    network = copy.deepcopy(inner).to("cpu").float()
    parameters = canonical_parameters(network)
    for name, tensor in drawn.items():
        parameters[name].copy_(tensor)
    return network
