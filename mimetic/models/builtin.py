"""mimetic's own models: each section of `mimetic.models.config` to its module."""

from collections.abc import Callable

from torch import nn

from mimetic.models import config
from mimetic.models.build import ModelBuilder, Request, build_layerwise
from mimetic.models.cifar_resnet import CifarResNet, combined_conv, plain_conv
from mimetic.models.convmixer import ConvMixer
from mimetic.models.mamba import Mamba
from mimetic.models.plain_cnn import PlainCnn
from mimetic.models.vgg11 import Vgg11
from mimetic.models.vit import VisionTransformer


def _of_section(network: Callable[..., nn.Module]) -> ModelBuilder:
    """Return the builder of a network that takes its section as `spec`."""
    return lambda spec, request: build_layerwise(network, request, spec=spec)


convmixer = _of_section(ConvMixer)
mamba = _of_section(Mamba)
plain_cnn = _of_section(PlainCnn)
vgg11 = _of_section(Vgg11)
vit = _of_section(VisionTransformer)


def cifar_resnet(spec: config.CifarResNet, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet."""
    conv = plain_conv(spec.kernel_size)
    return build_layerwise(CifarResNet, request, depth=spec.depth, width=spec.width, conv=conv)


def cifar_resnet_lc(spec: config.CifarResNetLC, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet of linear combinations."""
    depth, width, expansion = spec.sizes
    conv = combined_conv(spec.kernel_size, expansion)
    return build_layerwise(CifarResNet, request, depth=depth, width=width, conv=conv)
