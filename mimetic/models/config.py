"""Sections of `model`: built-in models, those of torchvision and timm by name, and the user's own code.

A model is a section here and one function (`impl`, protocol `mimetic.models.build.ModelBuilder`). No torch.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from mimetic.config.base import Arguments, Count, FromList, Positive, validation_error
from mimetic.config.registry import Component, registered
from mimetic.config.suggest import choice
from mimetic.errors import UserError
from mimetic.models.arguments import ConstructorArguments


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise validation_error(
            f"a kernel of side {value} has no centre",
            code="MIM-M044",
            hint=f"choose {value - 1} or {value + 1}",
        )
    return value


OddSide = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class Model(Component, family="model"):
    """Base of the models; channels and classes come from the data unless given."""

    reads: ClassVar[Literal["images", "tokens"] | None] = "images"
    """Kind of input; None if only its code knows."""

    argument: ClassVar[str | None] = None
    """Field that the text after a colon sets on the command line, as in `timm:convmixer_768_32`."""

    num_classes: Count | None = Field(None, description="Outputs; default: the data's number of classes.")
    in_channels: Count | None = Field(None, description="Input channels; default: the data's.")

    def cost(self) -> tuple[float, float]:
        """Return about how many parameters and layers it has; zeros if that is unknown before building."""
        return 0.0, 0.0


class ConvMixer(Model, type="convmixer", impl="mimetic.models.builtin:convmixer"):
    """ConvMixer (Trockman and Kolter, arXiv 2201.09792)."""

    example: ClassVar[Mapping[str, object]] = {"dim": 8, "depth": 2, "kernel_size": 3}

    dim: Count = Field(256, description="Width.")
    depth: Count = Field(8, description="Number of blocks.")
    kernel_size: Count = Field(5, description="Side of the depthwise filters.")
    patch_size: Count = Field(2, description="Side and stride of the patch embedding.")

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers, containers included."""
        block = self.dim * (self.kernel_size**2 + self.dim)
        return self.depth * block + 3 * self.dim * self.patch_size**2, 8 * self.depth


class CifarResNet(Model, type="cifar_resnet", impl="mimetic.models.builtin:cifar_resnet"):
    """ResNet for 32-pixel images, 6n+2 layers in three stages (He et al., arXiv 1512.03385, §4.2)."""

    example: ClassVar[Mapping[str, object]] = {"depth": 8, "width": 4}

    depth: Literal[8, 14, 20, 32, 44, 56, 110] = Field(20, description="Number of layers, 6n+2.")
    width: Count = Field(16, description="Channels of the first stage.")
    kernel_size: OddSide = Field(3, description="Side of the spatial filters; odd.")

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers, for three stages of doubled width."""
        return 7 * self.depth * (self.width * self.kernel_size) ** 2, 4 * self.depth


class CifarResNetLC(Model, type="cifar_resnet_lc", impl="mimetic.models.builtin:cifar_resnet_lc"):
    """CIFAR-ResNet whose k×k convolutions are linear combinations of filters (arXiv 2301.11360)."""

    example: ClassVar[Mapping[str, object]] = {"name": "ResNet-LC-8-4x2"}
    argument = "name"

    name: str = Field(
        "ResNet-LC-20-16x1",
        pattern=r"^ResNet-LC-(8|14|20|32|44|56|110)-[1-9]\d{0,4}x[1-9]\d{0,3}$",
        examples=["ResNet-LC-20-16x8"],
        description="ResNet-LC-{depth}-{width}x{expansion}.",
    )
    kernel_size: OddSide = Field(3, description="Side of the spatial filters; odd.")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Return depth, width and expansion."""
        depth, _, rest = self.name.removeprefix("ResNet-LC-").partition("-")
        width, _, expansion = rest.partition("x")
        return int(depth), int(width), int(expansion)

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers, filters and their mixing."""
        depth, width, expansion = self.sizes
        return 7 * depth * expansion * width**2 * (self.kernel_size**2 + 1), 6 * depth


class Vgg11(Model, type="vgg11", impl="mimetic.models.builtin:vgg11"):
    """VGG-11 (Simonyan and Zisserman, arXiv 1409.1556), with a small head for small images."""

    example: ClassVar[Mapping[str, object]] = {"width": 2}

    width: Count = Field(64, description="Channels of the first stage.")
    batch_norm: bool = Field(True, description="Batch normalization after each convolution.")
    head: Literal["pooled", "classic"] = Field(
        "pooled", description="Average pooling and one linear layer, or the original's three linear layers."
    )

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers."""
        return 2300 * self.width**2, 40


class PlainCnn(Model, type="plain_cnn", impl="mimetic.models.builtin:plain_cnn"):
    """Convolutions, each followed by ReLU and standardization, and a linear classifier (arXiv 2305.18512)."""

    example: ClassVar[Mapping[str, object]] = {"widths": [4, 8]}

    widths: Annotated[tuple[Count, ...], FromList, Field(min_length=1)] = Field(
        (64, 128), description="Channels of each convolution."
    )
    kernel_size: Count = Field(3, description="Side of the filters.")
    stride: Count = Field(2, description="Stride of each convolution.")
    norm: Literal["after", "before", "none"] = Field(
        "after",
        description="Batch normalization without scale and shift: after or before the ReLU.",
    )
    pool: bool = Field(True, description="Average over the pixels before the classifier.")

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers."""
        pairs = sum(one * two for one, two in pairwise((3, *self.widths)))
        return pairs * self.kernel_size**2, 4 * len(self.widths)


class Mamba(Model, type="mamba", impl="mimetic.models.builtin:mamba"):
    """Mamba or Mamba-2 for sequences of tokens (Gu and Dao, arXiv 2312.00752; Dao and Gu, 2405.21060)."""

    example: ClassVar[Mapping[str, object]] = {"dim": 8, "state": 4, "head_dim": 8}
    reads = "tokens"

    version: Literal[1, 2] = Field(2, description="Mamba or Mamba-2.")
    dim: Count = Field(64, description="Width.")
    depth: Count = Field(2, description="Number of layers.")
    state: Count = Field(32, description="States of each channel.")
    head_dim: Count = Field(32, description="Channels of a head, of the 2·dim inside a layer (Mamba-2).")

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers."""
        return self.depth * self.dim * (6 * self.dim + 4 * self.state), 10 * self.depth

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        inner = 2 * self.dim
        if self.version == 2 and inner % self.head_dim:  # noqa: PLR2004 - Mamba-2
            raise validation_error(
                f"the 2·dim = {inner} channels inside a layer do not divide into heads of {self.head_dim}",
                code="MIM-M045",
                at=("head_dim",),
                hint="choose a divisor of 2·dim",
            )
        return self


VIT_SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12)}
"""Width, depth and heads of the sizes of DeiT."""


class Vit(Model, type="vit", impl="mimetic.models.builtin:vit"):
    """Vision transformer (Dosovitskiy et al., arXiv 2010.11929) in the sizes of DeiT, for small images."""

    example: ClassVar[Mapping[str, object]] = {
        "width": 8,
        "depth": 2,
        "heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }

    size: Literal["ti", "s", "b"] = Field("ti", description="Width, depth and heads by name.")
    width: Count | None = Field(None, description="Width of the tokens; default: by size.")
    depth: Count | None = Field(None, description="Number of blocks; default: by size.")
    heads: Count | None = Field(None, description="Attention heads; default: by size.")
    patch_size: Count = Field(2, description="Side and stride of the patch embedding.")
    image_size: Count = Field(32, description="Side of the images.")
    mlp_ratio: Positive = Field(4.0, description="Hidden width of the MLPs relative to the width.")
    pool: Literal["mean", "cls"] = Field("mean", description="Mean of the tokens, or a class token.")
    positions: Literal["learned", "sincos"] = Field(
        "learned", description="A learned table, or fixed sines and cosines."
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return width, depth and heads."""
        width, depth, heads = VIT_SIZES[self.size]
        return (
            width if self.width is None else self.width,
            depth if self.depth is None else self.depth,
            heads if self.heads is None else self.heads,
        )

    def cost(self) -> tuple[float, float]:
        """Return the number of parameters and of layers; the table of positions counts."""
        width, depth, _ = self.shape
        embedding = 3 * self.patch_size**2 + (self.image_size // self.patch_size) ** 2
        return width * (depth * width * (4 + 2 * self.mlp_ratio) + embedding), 15 * depth

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        width, _, heads = self.shape
        if width % heads:
            raise validation_error(f"a width of {width} cannot be shared by {heads} heads", code="MIM-M046")
        if self.image_size % self.patch_size:
            raise validation_error(
                f"images of side {self.image_size} have no whole patches of side {self.patch_size}",
                code="MIM-M047",
                hint="give an `image_size` that is a multiple of `patch_size`",
            )
        if self.positions == "sincos" and width % 4:
            raise validation_error(
                f"sines and cosines need a width that is a multiple of 4, not {width}", code="MIM-M048"
            )
        return self


class Torchvision(Model, type="torchvision", impl="mimetic.models.published:torchvision"):
    """A classification model of torchvision by name, e.g. resnet18."""

    example: ClassVar[Mapping[str, object]] = {"name": "squeezenet1_1"}
    argument = "name"

    name: str = Field(
        min_length=1, description="Name in `torchvision.models.list_models()`.", examples=["resnet18"]
    )
    args: ConstructorArguments = Field(default_factory=dict, description="Arguments of its constructor.")


class Timm(Model, type="timm", impl="mimetic.models.published:timm"):
    """A model of timm by name, e.g. convmixer_768_32."""

    example: ClassVar[Mapping[str, object]] = {"name": "test_convnext"}
    argument = "name"

    name: str = Field(
        min_length=1, description="Name in `timm.list_models()`.", examples=["convmixer_768_32"]
    )
    args: ConstructorArguments = Field(default_factory=dict, description="Arguments of `timm.create_model`.")


class PythonModel(Model, type="python", impl="mimetic.models.python:python"):
    """The user's own factory; runs code, so it needs `--allow-code` on the command line."""

    example: ClassVar[Mapping[str, object]] = {"call": "package.module:function"}
    reads = None
    argument = "call"

    call: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        examples=["package.module:function"],
        description="Module and function, 'package.module:function'.",
    )
    args: Arguments = Field(default_factory=dict, description="Keyword arguments of the function.")


def parse_model_argument(text: str) -> Model:
    """Return the model section that `--model TEXT` names.

    `TEXT` is a registered type with its defaults (`convmixer`), or a type and its `argument`
    (`timm:convmixer_768_32`, `torchvision:resnet18`, `python:package.module:function`).

    Raises:
        UserError: If there is no such type, or its argument is missing or wrong.
    """
    kind, _, argument = text.partition(":")
    types = registered("model")
    section = types.get(kind)
    if section is None:
        raise UserError(
            f"--model: there is no model type `{kind}`; {choice(kind, types, label='types')}", code="MIM-M040"
        )
    assert issubclass(section, Model)
    if argument and section.argument is None:
        raise UserError(
            f"--model: `{kind}` takes nothing after a colon, got `{text}`; write `{kind}`", code="MIM-M041"
        )
    if not argument and section.argument is not None:
        example = (section.model_fields[section.argument].examples or ["NAME"])[0]
        raise UserError(f"--model: `{kind}` needs a name, e.g. `{kind}:{example}`", code="MIM-M042")
    try:
        return section.model_validate({} if section.argument is None else {section.argument: argument})
    except ValidationError as error:
        details = "; ".join(f"`{detail['loc'][-1]}`: {detail['msg']}" for detail in error.errors())
        raise UserError(f"--model: `{text}` does not describe a model: {details}", code="MIM-M043") from error
