"""Sections of `learner`: kernel machines, which learn a covariance of features or none. No torch.

A learner is a section here and two functions, `impl` and `plan_impl` (protocols in `mimetic.kernels.learn`).
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mimetic.config.base import Count, Fraction, FromList, Positive, listed_once, validation_error
from mimetic.config.registry import Component
from mimetic.covariance.config import Power

Ridges = Annotated[
    tuple[Positive, ...], Field(min_length=1, max_length=32), FromList, AfterValidator(listed_once("ridge"))
]


class Learner(Component, family="learner"):
    """Base of the learners: their images, and the ridge of their regression."""

    images: Count | None = Field(
        None,
        description="Training images, drawn by the trial's seed; default: the whole training split.",
    )
    inputs: Literal["pixels", "standardized", "unit"] = Field(
        "pixels",
        description="Inputs: pixels in [0, 1], pixels standardized per channel as for networks, "
        "or whole images of unit norm.",
    )
    ridge: Ridges = Field(
        (1e-8, 1e-5, 1e-3),
        description="Ridges to select from on validation images, relative to the kernel's largest entry; "
        "with one, nothing is selected.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        examples=["auto", "cpu", "cuda:0"],
        description="Device.",
    )

    def num_bytes(self, images: int, _channels: int, /) -> float:
        """Return about how much memory its matrices take, for so many training images of so many channels."""
        return 8 * float(images if self.images is None else min(images or self.images, self.images)) ** 2

    @property
    def validation_use(self) -> str | None:
        """Return what validation images are needed for; None if they are not."""
        return "selecting among several ridges" if len(self.ridge) > 1 else None


class Iterated(Learner):
    """Base of the learners that refit their kernel round by round."""

    rounds: Annotated[int, Field(ge=0)] = Field(
        4, description="Number of times that features are learned and the kernel is refitted (default ours)."
    )
    select: Literal["validation", "last"] = Field(
        "validation",
        description="The round that counts: the most accurate on validation images, or the last one.",
    )
    power: Power = Field(
        1.0, description="Power of the AGOP that features are multiplied by: 1, or 0.5 for its square root."
    )

    @property
    def validation_use(self) -> str | None:
        """Return what validation images are needed for; None if they are not."""
        by_round = "`select: validation`" if self.rounds > 0 and self.select == "validation" else None
        return super().validation_use or by_round


class Convolutional(Learner):
    """Base of the learners with the kernel of an infinitely wide convolutional network."""

    patch_size: Annotated[int, Field(ge=1)] = Field(3, description="Side of its convolutions.")
    depth: Count = Field(3, description="Number of its convolutions.")
    padding: bool = Field(False, description="Zero-pad the images before the first convolution.")
    precision: Literal["fp32", "fp64"] = Field("fp32", description="Arithmetic of the kernel.")

    def num_bytes(self, images: int, channels: int, /) -> float:
        """Return about how much memory its matrices take, those of patches included."""
        patch = float(channels) * self.patch_size**2
        return super().num_bytes(images, channels) + 8 * patch**2


class Rfm(Iterated, type="rfm", impl="mimetic.kernels.rfm:rfm", plan_impl="mimetic.kernels.rfm:plan_rfm"):
    """Recursive feature machine: Laplace kernel, metric learned over whole images (arXiv 2212.13881)."""

    rounds: Annotated[int, Field(ge=0)] = Field(
        5, description="Number of times that features are learned and the kernel is refitted, 5 as published."
    )
    bandwidth: Positive = Field(10.0, description="Length L of the kernel exp(−distance/L).")
    centered: bool = Field(True, description="Subtract the mean gradient in the AGOP.")
    scaling: Literal["mean", "max"] = Field(
        "mean", description="The AGOP is the mean over images, or divided by its largest entry."
    )
    diagonal: bool = Field(False, description="Use only the diagonal of the AGOP.")


class Cntk(
    Convolutional,
    type="cntk",
    impl="mimetic.kernels.convrfm:cntk",
    plan_impl="mimetic.kernels.convrfm:plan_cntk",
):
    """Fixed convolutional neural tangent kernel: ConvRFM before it learns features (arXiv 2309.00570)."""


class ConvRfm(
    Convolutional,
    Iterated,
    type="convrfm",
    impl="mimetic.kernels.convrfm:convrfm",
    plan_impl="mimetic.kernels.convrfm:plan_convrfm",
):
    """Convolutional recursive feature machine: CNTK, patches weighted by their AGOP (arXiv 2309.00570)."""

    power: Power = Field(
        0.5,
        description="Power of the AGOP that patches are multiplied by: 0.5, the published option `sqrtM` and "
        "our default, or 1, the published default.",
    )
    agop_images: Count = Field(
        20, description="Number of training images, the first ones, at which gradients are taken."
    )
    threshold: Fraction = Field(
        0.0,
        description="Fraction of the lowest eigenvalues of the AGOP set to zero in what patches are "
        "multiplied by, with `power: 0.5` only; a round's covariance has them all. Published with 0.75.",
    )
    compat: bool = Field(
        False,
        description="Take gradients with the last ridge, as the paper's code does, not the selected one.",
    )

    @model_validator(mode="after")
    def _threshold_of_roots(self) -> Self:
        if self.threshold > 0.0 and self.power == 1.0:
            raise validation_error(
                "`threshold` has an effect with `power: 0.5` only, as published",
                code="MIM-K101",
                at=("threshold",),
                hint="set `power: 0.5`, or remove it",
            )
        return self


class DeepConvRfm(
    ConvRfm,
    type="deep_convrfm",
    impl="mimetic.kernels.convrfm:deep_convrfm",
    plan_impl="mimetic.kernels.convrfm:plan_deep_convrfm",
):
    """Deep ConvRFM: layer by layer, random convolutions with the learned covariance (arXiv 2309.00570)."""

    width: Count = Field(64, description="Filters of each random convolution.")

    def num_bytes(self, images: int, channels: int, /) -> float:
        """Return about how much memory its matrices take; later layers see `width` channels."""
        return super().num_bytes(images, max(channels, self.width))

    unit_trace: bool = Field(
        False, description="Draw filters from M divided by its trace, the published `sampleM`, not from M."
    )
