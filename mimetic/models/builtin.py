"""mimetic's own models: each section of `mimetic.models.config` to its module."""

from torch import nn

from mimetic.models import config
from mimetic.models.build import Request, build_layerwise
from mimetic.models.cifar_resnet import CifarResNet, combined_conv, plain_conv
from mimetic.models.convmixer import ConvMixer
from mimetic.models.mamba import Mamba
from mimetic.models.plain_cnn import PlainCnn
from mimetic.models.vgg11 import Vgg11
from mimetic.models.vit import VisionTransformer


def convmixer(spec: config.ConvMixer, request: Request) -> nn.Module:
    """Build a ConvMixer."""
    return build_layerwise(ConvMixer, request, **spec.constructor_arguments())


def cifar_resnet(spec: config.CifarResNet, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet."""
    conv = plain_conv(spec.kernel_size)
    return build_layerwise(CifarResNet, request, depth=spec.depth, width=spec.width, conv=conv)


def cifar_resnet_lc(spec: config.CifarResNetLC, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet of linear combinations."""
    depth, width, expansion = spec.sizes
    conv = combined_conv(spec.kernel_size, expansion)
    return build_layerwise(CifarResNet, request, depth=depth, width=width, conv=conv)


def plain_cnn(spec: config.PlainCnn, request: Request) -> nn.Module:
    """Build a plain CNN."""
    return build_layerwise(PlainCnn, request, spec=spec)


def vgg11(spec: config.Vgg11, request: Request) -> nn.Module:
    """Build a VGG-11."""
    return build_layerwise(Vgg11, request, **spec.constructor_arguments())


def mamba(spec: config.Mamba, request: Request) -> nn.Module:
    """Build a Mamba."""
    return build_layerwise(Mamba, request, spec=spec)


def vit(spec: config.Vit, request: Request) -> nn.Module:
    """Build a vision transformer."""
    return build_layerwise(VisionTransformer, request, spec=spec)
