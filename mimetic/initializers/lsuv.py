"""Layer-sequential unit variance: the last step of an initialization, on images (arXiv 1511.06422).

Every layer's weights are divided by the deviation of its outputs, the first layer first, so that each sees
what the layers before it will send. Biases stay; the network's other parameters are as they will be.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mimetic.covariance.config import Lsuv
from mimetic.covariance.context import Harvests
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.linalg import one_thread
from mimetic.covariance.network import TrainingImages
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_buffers, canonical_modules
from mimetic.graph.site import Site
from mimetic.initializers.draw import NetworkInit, ResolvedInit, Streams


def lsuv(drawn: ResolvedInit, spec: Lsuv, site: Site, harvests: Harvests) -> ResolvedInit:
    """Return a layer's draw with its share in the scaling of the network.

    Args:
        drawn: The draw of its weights, at any size.
        spec: The scale.
        site: The layer.
        harvests: The training images, by `harvest_key`.

    Raises:
        UserError: If no images are at hand.
    """
    images = harvests.get(harvest_key(spec))
    if not isinstance(images, TrainingImages):
        message = f"{site.layer}: the scale `lsuv` needs training images, and none are at hand here; "
        raise UserError(message + "`mimetic run` takes the recipe's; in Python, give `images` to the call")

    def fill(network: nn.Module, shares: Mapping[str, Any], _streams: Streams) -> Mapping[str, str]:
        if images.images_NCHW is None:
            message = "the scale `lsuv` has no images yet; resolve the plan again with images "
            raise RunError(message + "(`mimetic run` does)")
        return unit_variance(network, shares, images.images_NCHW)

    seen = "pending" if images.digest is None else images.digest
    note = f"then scaled on {spec.images} training images to outputs of deviation {spec.gain:g}, last of all"
    return replace(
        drawn,
        arguments={**drawn.arguments, "images": seen},
        moments={},
        notes=(*drawn.notes, note),
        joint=NetworkInit("lsuv", fill, share=spec.gain, last=True),
    )


def unit_variance(network: nn.Module, targets: Mapping[str, float], images_NCHW: Tensor) -> dict[str, str]:
    """Scale layers in place until their outputs on images have the deviations asked for.

    Dropout is off and normalizations use the batch's statistics, as in training; running statistics stay
    as they are.

    Guarantee: the same bits for any number of threads; another kind of processor may round the forward
    otherwise.

    Args:
        network: The network with all other parameters in place, float32 on the CPU.
        targets: Deviation of the outputs by canonical layer name.
        images_NCHW: Images as the network sees them.

    Returns:
        A remark for each layer.

    Raises:
        RunError: If a layer's outputs do not vary, are not finite, or vary too much by biases alone; if the
            forward fails or leaves a layer out.
    """
    modules = canonical_modules(network)
    buffers = {name: buffer.clone() for name, buffer in canonical_buffers(network).items()}
    was_training = {module: module.training for module in network.modules()}
    remarks: dict[str, str] = {}
    hooks = [_scaling(modules[name], name, target, remarks) for name, target in targets.items()]
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all of them
            module.train()
    try:
        with torch.no_grad(), one_thread():
            network(images_NCHW)
    except RuntimeError as error:
        raise RunError(f"`lsuv` runs the network on {tuple(images_NCHW.shape)} images: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was_training.items():
            module.training = training
        with torch.no_grad():
            for name, buffer in canonical_buffers(network).items():
                buffer.copy_(buffers[name])
    left = [name for name in targets if name not in remarks]
    if left:
        message = f"{left[0]}: `lsuv` scales a layer by its outputs, and a forward does not call it; "
        raise RunError(message + "use another scale for it")
    return remarks


def _scaling(layer: nn.Module, name: str, target: float, remarks: dict[str, str]) -> RemovableHandle:
    """Let a layer scale itself at its first call, and send on what it then answers."""

    def scale(module: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> Tensor:
        if name in remarks:
            return outputs
        weight = module._parameters["weight"]  # noqa: SLF001 - set in place, past any parametrization
        assert weight is not None
        kept = weight.clone()
        weight.zero_()
        factor = _factor(outputs.double(), module.forward(*inputs).double(), target, name)
        weight.copy_(kept.mul_(factor))
        remarks[name] = f"scaled by {factor:.4g} to outputs of deviation {target:g}"
        return cast("Tensor", module.forward(*inputs))

    return layer.register_forward_hook(scale)


def _factor(outputs: Tensor, constant: Tensor, target: float, name: str) -> float:
    """Return the s > 0 for which s·u + b has the target's deviation, u + b the outputs and b their constant.

    s²·Var u + 2s·Cov(u, b) + Var b = target²; without biases s = target / std u. The paper divides by the
    deviation of u + b until it is close.
    """
    varying, constant = outputs - constant, constant - constant.mean()
    varying = varying - varying.mean()
    square = float(varying.square().mean())
    mixed = float((varying * constant).mean())
    rest = float(constant.square().mean()) - target * target
    if not (math.isfinite(square) and math.isfinite(rest) and square > 0.0):
        message = f"{name}: its outputs on the images do not vary, or are not finite (mean square of their "
        message += f"varying part {square}), so `lsuv` cannot scale them; "
        raise RunError(message + "look at the layers before it with `mimetic plan`")
    root = mixed * mixed - square * rest
    factor = (math.sqrt(root) - mixed) / square if root >= 0.0 else -1.0
    if factor <= 0.0:
        message = f"{name}: its biases alone make its outputs deviate by {math.sqrt(rest + target**2):.4g}, "
        message += f"so `lsuv` cannot bring them to {target:g}; "
        raise RunError(message + "set the biases to zero by a rule, or ask for a larger `gain`")
    return factor
