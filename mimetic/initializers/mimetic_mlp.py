"""`mimetic_mlp`: the first layer of an MLP pair with a mean that is not zero.

W₁ ← W₁ + μ 1 1ᵀ (Trockman and Kolter, "Mimetic Initialization of MLPs", arXiv 2602.07156). Neither sign nor
size of μ could be read in a source; it is given in units of the law's standard deviation, to be swept. A
uniform shift adds μ Σⱼ xⱼ to every pre-activation: behind a LayerNorm, whose output has no mean over the
features but by its bias, it acts through the norm's scale and bias alone.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimetic.graph.site import Site
from mimetic.initializers.config import MimeticMlp
from mimetic.initializers.dispatch import made, named
from mimetic.initializers.draw import Moments, ResolvedInit, Streams


@made.register
def _(spec: MimeticMlp) -> frozenset[str]:  # noqa: ARG001
    return frozenset({"fc1"})


@named.register
def mimetic_mlp(spec: MimeticMlp, site: Site, names: tuple[str, ...]) -> ResolvedInit:
    """Return the draw of the first layer, U(± fan_in^-½) or N(0, std²), shifted; keyed by the site's name."""
    slot = site.slot("fc1")
    assert slot is not None
    shape = site.slot_shape("fc1")
    bound = shape[1] ** -0.5
    std = bound / math.sqrt(3.0) if spec.std is None else spec.std
    mean = spec.shift * std

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG001
        weight_OI, stream = torch.empty(shape, dtype=torch.float64), streams("", "fc1")
        if spec.std is None:
            weight_OI.uniform_(-bound, bound, generator=stream)
        else:
            weight_OI.normal_(0.0, std, generator=stream)
        weight_OI += mean
        stored = weight_OI.t() if slot.transposed else weight_OI
        values = stored.to(torch.float32, memory_format=torch.contiguous_format)
        return {slot.parameter: values} if slot.parameter in names else {}

    moments = {slot.parameter: Moments(mean, std, float(math.prod(shape)))}
    return ResolvedInit(
        name=spec.type_name(), arguments=spec.model_dump(exclude={"type"}), sample=sample, moments=moments
    )
