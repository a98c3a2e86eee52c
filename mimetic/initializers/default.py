"""`keep` and `default`: the values a layer has, and the values its class gives it."""

from collections.abc import Mapping

from torch import Tensor, nn

from mimetic.covariance.context import Context
from mimetic.graph.site import Site
from mimetic.initializers import config
from mimetic.initializers.resolved import ResolvedInit, Streams
from mimetic.models.reset import draw_default


def keep(_spec: config.Keep, _site: Site, _context: Context) -> ResolvedInit:
    """Leave the values as they are: nothing is written, and no moments are expected."""
    return ResolvedInit(name="keep", arguments={}, sample=lambda _streams, _layer: {})


def default(_spec: config.Default, _site: Site, context: Context) -> ResolvedInit:
    """Draw parameters as the layer's own `reset_parameters` does, and reset the buffers that it resets.

    Guarantee: the bits that the built-in models are built with, for the same seed and layer name. A network
    that initializes itself as a whole (torchvision, timm, your own) starts from other values unless a rule
    has `init: default`.

    Raises:
        UserError: When sampled, if the layer has no `reset_parameters` or it leaves a parameter unset.
    """

    def sample(streams: Streams, layer: nn.Module) -> Mapping[str, Tensor]:
        return draw_default(
            layer, seed=streams.seed, name=streams.site, wanted=context.parameters, buffers=True
        )

    return ResolvedInit(name="default", arguments={}, sample=sample)
