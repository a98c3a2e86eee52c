"""Layer-sequential unit variance: the last step of an initialization, on images (arXiv 1511.06422).

Every layer's weights are divided by the standard deviation of its outputs, in the order of execution: each
layer sees the outputs of the layers before it as they will be. Biases stay; all other parameters are already
initialized.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mimetic.covariance.capture import eval_mode
from mimetic.covariance.config import Lsuv
from mimetic.covariance.context import Context
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainingImages
from mimetic.errors import RunError, UserError
from mimetic.graph.names import canonical_buffers, canonical_modules
from mimetic.graph.own import own_parameters
from mimetic.graph.site import Site
from mimetic.initializers.resolved import NetworkInit, NetworkStreams, ResolvedInit
from mimetic.threads import one_thread


def lsuv(resolved: ResolvedInit, spec: Lsuv, site: Site, context: Context) -> ResolvedInit:
    """Add the scaling on images to a layer's initializer.

    Args:
        resolved: The initializer of its weights, at any size.
        spec: The scale.
        site: The layer.
        context: The training images, by `harvest_key`.

    Raises:
        UserError: If no images are available.
    """
    images = context.harvests.get(harvest_key(spec))
    if not isinstance(images, TrainingImages):
        raise UserError(
            f"{site.layer}: the scale `lsuv` needs training images, and none are available here; `mimetic "
            "run` takes the recipe's; in Python, give `images` to the call",
            code="MIM-I081",
        )

    def fill(network: nn.Module, gains: Mapping[str, float], _streams: NetworkStreams) -> Mapping[str, str]:
        if images.images_NCHW is None:
            raise RunError(
                "the scale `lsuv` has no images yet; resolve the plan again with images (`mimetic run` does)",
                code="MIM-I082",
            )
        return unit_variance(network, gains, images.images_NCHW)

    digest = "pending" if images.digest is None else images.digest
    note = f"then scaled on {spec.images} training images to outputs of deviation {spec.gain:g}, last of all"
    return replace(
        resolved,
        arguments={**resolved.arguments, "images": digest},
        moments={},
        notes=(*resolved.notes, note),
        network_init=NetworkInit("lsuv", fill, argument=spec.gain, last=True),
    )


def unit_variance(network: nn.Module, targets: Mapping[str, float], images_NCHW: Tensor) -> dict[str, str]:
    """Scale layers in place until their outputs on images have given standard deviations.

    Dropout is off and normalizations use the batch's statistics, as in training; running statistics stay
    as they are.

    Guarantee: the same bits for any number of threads; another kind of processor may round the forward
    differently.

    Args:
        network: The network with all other parameters initialized, float32 on the CPU.
        targets: Standard deviation of the outputs by canonical layer name.
        images_NCHW: Images as the network sees them.

    Returns:
        A remark by layer.

    Raises:
        RunError: If a layer's outputs do not vary, are not finite, or vary too much by biases alone; if the
            forward fails or leaves a layer out.
    """
    modules = canonical_modules(network)
    buffers = {name: buffer.clone() for name, buffer in canonical_buffers(network).items()}
    # One forward suffices: each layer scales itself at its call, and those behind it see its new outputs.
    remarks: dict[str, str] = {}
    hooks = [_scaling(modules[name], name, target, remarks) for name, target in targets.items()]
    try:
        with eval_mode(network), torch.no_grad(), one_thread():
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all of them
                    module.train()
            network(images_NCHW)
    except RuntimeError as error:
        raise RunError(
            f"`lsuv` runs the network on {tuple(images_NCHW.shape)} images: {error}", code="MIM-I083"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for name, buffer in canonical_buffers(network).items():
                buffer.copy_(buffers[name])
    # A layer that is never called was not scaled.
    left = [name for name in targets if name not in remarks]
    if left:
        raise RunError(
            f"{left[0]}: `lsuv` scales a layer by its outputs, and a forward does not call it; use another "
            "scale",
            code="MIM-I084",
        )
    return remarks


def _scaling(layer: nn.Module, name: str, target: float, remarks: dict[str, str]) -> RemovableHandle:
    """Register a hook by which a layer scales its weights at its first call; return its handle."""

    def scale(module: nn.Module, inputs: tuple[object, ...], outputs: Tensor) -> Tensor:
        if name in remarks:
            return outputs
        weight = own_parameters(module)["weight"]  # set in place, past any parametrization
        assert weight is not None
        unscaled = weight.clone()
        weight.zero_()  # what remains of the outputs comes from the biases
        factor = _factor(outputs.double(), module.forward(*inputs).double(), target, name)
        weight.copy_(unscaled.mul_(factor))
        remarks[name] = f"scaled by {factor:.4g} to outputs of deviation {target:g}"
        return cast("Tensor", module.forward(*inputs))

    return layer.register_forward_hook(scale)


def _factor(outputs: Tensor, constant: Tensor, target: float, name: str) -> float:
    """Return s > 0 such that s·u + b has the target standard deviation; outputs are u + b, b by the biases.

    s²·Var u + 2s·Cov(u, b) + Var b = target²; without biases s = target / std u. The paper divides by the
    deviation of u + b until it is close.
    """
    # u varies with the weights, b with the biases alone; both are centered.
    varying, constant = outputs - constant, constant - constant.mean()
    varying = varying - varying.mean()
    square = float(varying.square().mean())
    mixed = float((varying * constant).mean())
    rest = float(constant.square().mean()) - target * target
    if not (math.isfinite(square) and math.isfinite(rest) and square > 0.0):
        raise RunError(
            f"{name}: its outputs on the images do not vary, or are not finite (mean square of their varying "
            f"part {square}), so `lsuv` cannot scale them; look at the layers before it with `mimetic plan`",
            code="MIM-I085",
        )
    # The larger root of the quadratic; none is positive where b alone deviates by more.
    root = mixed * mixed - square * rest
    factor = (math.sqrt(root) - mixed) / square if root >= 0.0 else -1.0
    if factor <= 0.0:
        raise RunError(
            f"{name}: its biases alone make its outputs deviate by {math.sqrt(rest + target**2):.4g}, so "
            f"`lsuv` cannot bring them to {target:g}; set the biases to zero by a rule, or use a larger "
            "`gain`",
            code="MIM-I086",
        )
    return factor
