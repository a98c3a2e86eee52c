"""`mimetic_mlp`: the first layer of an MLP pair with a mean that is not zero.

W₁ ← W₁ + μ 1 1ᵀ (Trockman and Kolter, "Mimetic Initialization of MLPs", arXiv 2602.07156). Neither sign nor
size of μ could be read in a source; it is given in units of the standard deviation, as a hyperparameter to
sweep. A uniform shift adds μ Σⱼ xⱼ to every pre-activation: behind a LayerNorm, whose output has no mean over
the features except by its bias, it acts through the norm's scale and bias alone.
"""

import math

import torch
from torch import Tensor

from mimetic.covariance.context import Context
from mimetic.graph.site import Site
from mimetic.initializers.composite import MapStreams, composite_init
from mimetic.initializers.config import MimeticMlp
from mimetic.initializers.resolved import Moments, ResolvedInit


def mimetic_mlp(spec: MimeticMlp, site: Site, context: Context) -> ResolvedInit:
    """Resolve the first layer, U(± fan_in^-½) or N(0, std²), shifted; keyed by the site's name."""
    slot = site.slot("fc1")
    assert slot is not None
    shape = site.slot_shape("fc1")
    bound = shape[1] ** -0.5
    std = bound / math.sqrt(3.0) if spec.std is None else spec.std
    mean = spec.shift * std

    def maps(stream: MapStreams) -> dict[str, Tensor]:
        weight_OI = torch.empty(shape, dtype=torch.float64)
        if spec.std is None:
            weight_OI.uniform_(-bound, bound, generator=stream("fc1"))
        else:
            weight_OI.normal_(0.0, std, generator=stream("fc1"))
        return {"fc1": weight_OI + mean}

    moments = {slot.parameter: Moments(mean, std, float(math.prod(shape)))}
    return composite_init(spec, site, context, maps, moments=moments)
