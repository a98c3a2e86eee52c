"""Learners without backpropagation: kernel machines that learn a covariance of features, or none."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mimetic.config.base import Count, Fraction, FromList, Positive, listed_once
from mimetic.config.registry import Component
from mimetic.covariance.config import one_or_half

Ridges = Annotated[
    tuple[Positive, ...], Field(min_length=1, max_length=32), FromList, AfterValidator(listed_once("ridge"))
]


class Learner(Component, family="learner"):
    """Base of the learners: which images they see, and the ridge of their regression."""

    images: Count | None = Field(
        None,
        description="Training images, drawn by the trial's seed; all of the training split unless given.",
    )
    inputs: Literal["pixels", "standardized", "unit"] = Field(
        "pixels",
        description="What is learned from: pixels in [0, 1], pixels less mean over deviation per channel as "
        "networks see them, or whole images of length one.",
    )
    ridge: Ridges = Field(
        (1e-8, 1e-5, 1e-3),
        description="Ridges to choose from on validation images, relative to the kernel's largest entry; "
        "with one there is no choice.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        examples=["auto", "cpu", "cuda:0"],
        description="Where to compute.",
    )

    @property
    def held_out(self) -> str | None:
        """Return what is decided on validation images; None where nothing is."""
        return "choosing among several ridges" if len(self.ridge) > 1 else None


class Iterated(Learner):
    """Base of the learners that refit their kernel round by round."""

    rounds: Annotated[int, Field(ge=0)] = Field(
        4, description="Times the features are learned anew and the kernel refitted."
    )
    select: Literal["validation", "last"] = Field(
        "validation",
        description="The round that counts: the most accurate on validation images, or the last.",
    )
    power: Annotated[float, AfterValidator(one_or_half)] = Field(
        1.0,
        description="Features are multiplied by AGOP to this power: 1, or 0.5 for its square root.",
        json_schema_extra={"enum": [0.5, 1.0]},
    )

    @property
    def held_out(self) -> str | None:
        """Return what is decided on validation images; None where nothing is."""
        chosen = "`select: validation`" if self.rounds > 0 and self.select == "validation" else None
        return chosen if super().held_out is None else super().held_out


class Convolutional(Learner):
    """Base of the learners whose kernel is that of an infinitely wide convolutional network."""

    patch_size: Annotated[int, Field(ge=1)] = Field(3, description="Side of its convolutions.")
    depth: Count = Field(3, description="Number of its convolutions.")
    padding: bool = Field(False, description="Pad the images by zeros before the first convolution.")
    precision: Literal["fp32", "fp64"] = Field("fp32", description="Arithmetic of the kernel.")


class Rfm(Iterated, type="rfm"):
    """Recursive feature machine: Laplace kernel, metric learned over whole images (arXiv 2212.13881)."""

    bandwidth: Positive = Field(10.0, description="Length L of the kernel exp(−distance/L).")
    centered: bool = Field(True, description="Take the mean gradient out of the AGOP.")
    scaling: Literal["mean", "max"] = Field(
        "mean", description="The AGOP is the mean over images, or divided by its largest entry."
    )
    diagonal: bool = Field(False, description="Keep the diagonal of the AGOP alone.")


class Cntk(Convolutional, type="cntk"):
    """Fixed convolutional neural tangent kernel: ConvRFM before it learns features (arXiv 2309.00570)."""


class ConvRfm(Convolutional, Iterated, type="convrfm"):
    """Convolutional recursive feature machine: CNTK, patches weighted by their AGOP (arXiv 2309.00570)."""

    power: Annotated[float, AfterValidator(one_or_half)] = Field(
        0.5,
        description="Patches are multiplied by AGOP to this power: 0.5, the published `sqrtM`, or 1.",
        json_schema_extra={"enum": [0.5, 1.0]},
    )
    agop_images: Count = Field(20, description="Training images the gradients are taken at, the first ones.")
    threshold: Fraction = Field(
        0.0, description="Share of the lowest eigenvalues of the AGOP set to zero; published with 0.75."
    )
    compat: bool = Field(
        False, description="Take gradients with the last ridge, as the paper's code does, not the chosen one."
    )


class DeepConvRfm(ConvRfm, type="deep_convrfm"):
    """Deep ConvRFM: layer by layer, random convolutions with the learned covariance (arXiv 2309.00570)."""

    width: Count = Field(64, description="Filters of each random convolution.")
    unit_trace: bool = Field(
        False, description="Draw filters from M over its trace, the published `sampleM`; else from M itself."
    )
