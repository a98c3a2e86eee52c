"""Our own models as a recipe names them."""

from torch import nn

from mimetic.models import config as recipe
from mimetic.models.build import Request, by_layer, construct
from mimetic.models.cifar_resnet import CifarResNet, combined_conv, plain_conv
from mimetic.models.convmixer import ConvMixer
from mimetic.models.mamba import Mamba
from mimetic.models.plain_cnn import PlainCnn
from mimetic.models.vgg11 import Vgg11
from mimetic.models.vit import VisionTransformer


@construct.register
def convmixer(spec: recipe.ConvMixer, request: Request) -> nn.Module:
    """Build a ConvMixer."""
    return by_layer(
        lambda: ConvMixer(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            dim=spec.dim,
            depth=spec.depth,
            kernel_size=spec.kernel_size,
            patch_size=spec.patch_size,
        ),
        request,
    )


@construct.register
def cifar_resnet(spec: recipe.CifarResNet, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet."""
    return by_layer(
        lambda: CifarResNet(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            depth=spec.depth,
            width=spec.width,
            conv=plain_conv(spec.kernel_size),
        ),
        request,
    )


@construct.register
def cifar_resnet_lc(spec: recipe.CifarResNetLC, request: Request) -> nn.Module:
    """Build a CIFAR-ResNet of linear combinations."""
    depth, width, expansion = spec.sizes
    return by_layer(
        lambda: CifarResNet(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            depth=depth,
            width=width,
            conv=combined_conv(spec.kernel_size, expansion),
        ),
        request,
    )


@construct.register
def plain_cnn(spec: recipe.PlainCnn, request: Request) -> nn.Module:
    """Build a plain CNN."""
    return by_layer(
        lambda: PlainCnn(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            widths=spec.widths,
            kernel_size=spec.kernel_size,
            stride=spec.stride,
            norm=spec.norm,
            pool=spec.pool,
        ),
        request,
    )


@construct.register
def vgg11(spec: recipe.Vgg11, request: Request) -> nn.Module:
    """Build a VGG-11."""
    return by_layer(
        lambda: Vgg11(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            width=spec.width,
            batch_norm=spec.batch_norm,
            head=spec.head,
        ),
        request,
    )


@construct.register
def mamba(spec: recipe.Mamba, request: Request) -> nn.Module:
    """Build a Mamba."""
    return by_layer(
        lambda: Mamba(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            dim=spec.dim,
            depth=spec.depth,
            state=spec.state,
            version=spec.version,
            head_dim=spec.head_dim,
        ),
        request,
    )


@construct.register
def vit(spec: recipe.Vit, request: Request) -> nn.Module:
    """Build a vision transformer."""
    width, depth, heads = spec.shape
    return by_layer(
        lambda: VisionTransformer(
            in_channels=request.in_channels,
            num_classes=request.num_classes,
            image_size=spec.image_size,
            patch_size=spec.patch_size,
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=spec.mlp_ratio,
            pool=spec.pool,
            fixed_positions=spec.positions == "sincos",
        ),
        request,
    )
