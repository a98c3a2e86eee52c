"""Sections of the covariances and scales of a rule. No torch."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mimetic.config.base import (
    Count,
    Fraction,
    FromList,
    NonNegative,
    Positive,
    Section,
    validation_error,
)
from mimetic.config.registry import Component, Registered, Takes
from mimetic.covariance.trained_ref import TrainedRefField


class CovarianceSource(Component, family="covariance"):
    """Base of the covariances of a layer's filters.

    Class arguments of a source, each "module:function":
        impl: `f(spec, site, context) -> Covariance | PendingCovariance`, the covariance of one layer's
            filters.
        measure: `f(spec, network, task) -> Mapping[str, Covariance]`, the statistic at each layer, by its
            name; only of sources that are measured on a network. See `mimetic.covariance.measure`.
        layers: `f(spec, sites) -> Sequence[Site]`, those of some sites where it can be measured.
    """

    version: ClassVar[int] = 1
    """Version of the code behind `measure`. Raise it whenever its numbers change: caches are then measured
    anew."""

    spatial: ClassVar[bool] = False
    """Whether the covariance is one over the kernel alone, which all input channels share."""

    def arguments_at(self, depth: float) -> dict[str, Any]:  # noqa: ARG002
        """Return the section as plain values, with what depends on depth at its value there."""
        return self.model_dump(by_alias=True, exclude_none=True)


Padding = Literal["wrap", "zero"]
Convention = Literal["variance", "std"]


class Width(Section):
    """Width of the closed form over depth d in [0, 1]: start + linear·d + ½·quadratic·d²."""

    expected: ClassVar[str] = "a number or a map such as `{start: 0.15, linear: 0.5}`"

    start: NonNegative = Field(0.15, description="Width at the first layer.")
    linear: float = Field(0.5, description="Growth per unit of depth.")
    quadratic: float = Field(0.25, description="Acceleration of the growth (enters with ½).")

    def at(self, depth: float) -> float:
        """Return the width at a depth fraction."""
        return self.start + self.linear * depth + 0.5 * self.quadratic * depth * depth


def _constant(value: object) -> object:
    """Convert a plain number to the same width at every depth."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"start": value, "linear": 0.0, "quadratic": 0.0}
    return value


class ClosedForm(
    CovarianceSource, type="closed_form", impl="mimetic.covariance.components:closed_form_of_layer"
):
    """Closed-form covariance of convolution filters, free of data and training (arXiv 2210.03651)."""

    width: Annotated[Width, BeforeValidator(_constant, json_schema_input_type=float | Width)] = Field(
        default_factory=Width, description="Width of the Gaussian bumps over depth, or one number."
    )
    padding: Padding = Field(
        "wrap", description="What a bump shifted over the border meets: the other side, or zeros."
    )
    psd: Literal["abs", "clip"] = Field(
        "abs", description="Negative eigenvalues become their absolute value (as numpy samples) or zero."
    )
    convention: Convention = Field(
        "variance", description="Whether the width is the bump's variance or its standard deviation."
    )

    def arguments_at(self, depth: float) -> dict[str, Any]:
        """Return the section with the width at a depth as a number."""
        return {**super().arguments_at(depth), "width": self.width.at(depth)}


class V1(CovarianceSource, type="v1", impl="mimetic.covariance.receptive_fields:v1_of_layer"):
    """Covariance of random receptive fields of visual cortex: smooth noise under a Gaussian window."""

    size: Positive = Field(1.5, description="Width s of the Gaussian window in pixels.")
    smoothness: Positive = Field(1.0, description="Correlation length f in pixels.")


class ScaleSpace(
    CovarianceSource, type="scale_space", impl="mimetic.covariance.receptive_fields:scale_space_of_layer"
):
    """Second moment of the eight master filters of trained depthwise layers (arXiv 2509.12746).

    They are derivatives of discrete Gaussians, fitted to clusters of trained filters; a drawn filter is a
    random combination of the eight.
    """

    variant: Literal["A", "B", "C2", "D2"] = Field(
        "B", description="Fit the scales come from; those of C2 and D2 are equal along both axes."
    )


class Identity(CovarianceSource, type="identity", impl="mimetic.covariance.components:identity"):
    """Independent weights of equal variance."""

    variance: Positive = Field(1.0, description="Variance of each weight before scaling.")


class Part(Section):
    """One covariance of a mixture and its weight."""

    expected: ClassVar[str] = "a map such as `{weight: 0.5, covariance: closed_form}`"
    renamed: ClassVar[Mapping[str, str]] = {"share": "weight"}

    weight: Positive = Field(1.0, description="Its part of the energy, relative to the other weights.")
    covariance: Annotated[CovarianceSource, Registered("covariance")] = Field(description="The covariance.")


class Mixture(CovarianceSource, type="mixture", impl="mimetic.covariance.components:mixture"):
    """Weighted mean of covariances, each scaled to trace 1 first: a weight is a part of the energy."""

    example: ClassVar[Mapping[str, object]] = {
        "components": ({"covariance": "closed_form"}, {"covariance": "identity"})
    }
    renamed: ClassVar[Mapping[str, str]] = {"parts": "components"}

    components: Annotated[tuple[Part, ...], Field(min_length=2, max_length=8), FromList] = Field(
        description="The covariances that are mixed."
    )

    def arguments_at(self, depth: float) -> dict[str, Any]:
        """Return the section with the arguments of each component at a depth."""
        arguments = super().arguments_at(depth)
        pairs = zip(arguments["components"], self.components, strict=True)
        arguments["components"] = [
            {**values, "covariance": part.covariance.arguments_at(depth)} for values, part in pairs
        ]
        return arguments


class Scale(Component, family="scale", impl="mimetic.covariance.scale:unchanged"):
    """Base of the scales.

    Class arguments of a scale, each "module:function":
        impl: `f(spec, geometry, found) -> float`, the trace of one filter's covariance before `gain`, where
            the source's own is `found`; unchanged unless given.
        finish: `f(resolved, spec, site, context) -> ResolvedInit`, a step that follows once the whole network
            is initialized; none unless given.
    """

    gain: Positive = Field(1.0, description="Factor on the weights, after the scale.")


class NoScale(Scale, type="none"):
    """Leave the covariance as its source gives it."""


class Gain(Scale, type="gain"):
    """Multiply the weights by a number and nothing else."""


class Kaiming(Scale, type="kaiming", impl="mimetic.covariance.scale:kaiming"):
    """Give the average weight the variance 2 / fan_in (He et al., arXiv 1502.01852)."""

    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Which fan divides.")
    nonlinearity: Literal["linear", "relu", "tanh", "selu", "sigmoid"] = Field(
        "relu", description="Nonlinearity whose recommended gain is used."
    )


class Xavier(Scale, type="xavier", impl="mimetic.covariance.scale:xavier"):
    """Give the average weight the variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""


class Trace(Scale, type="trace", impl="mimetic.covariance.scale:fixed_trace"):
    """Give the covariance of one filter a fixed trace."""

    trace: Positive = Field(1.0, description="Trace of the covariance, the expected energy of a filter.")


class MatchDefault(Scale, type="match_default", impl="mimetic.covariance.scale:match_default"):
    """Give a filter the energy of PyTorch's own default, U(±1/sqrt(fan_in)): trace 1/3."""


class KaimingNfm(Scale, type="kaiming_nfm", impl="mimetic.covariance.scale:kaiming_nfm"):
    """Multiply the covariance, not the weights, by sqrt(2 / fan_in), as the NFM study's code of that name.

    For comparisons with that study; `kaiming_agop` there divides by 100 as well.
    """

    formerly = ("study_compat",)

    divisor: Positive = Field(1.0, description="Divides the covariance; 100 for the study's AGOP.")


class Lsuv(Scale, type="lsuv", finish="mimetic.initializers.lsuv:lsuv"):
    """Give each layer's outputs on training images the deviation `gain`, in order (arXiv 1511.06422).

    The last step of all: it sees the network with every other parameter in place.
    """

    takes = "images"

    images: Count = Field(256, description="Training images the outputs are measured on.")


def expand_gain(value: object) -> object:
    """Convert a plain number, or a map without `type`, to `{type: gain}`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"type": "gain", "gain": value}
    if isinstance(value, dict) and "type" not in value and "gain" in value:
        return {"type": "gain", **value}
    return value


class Fit(Component, family="fit"):
    """Base of the formulas that replace a measured covariance, fitted to it by least squares.

    Class arguments of a formula:
        impl: "module:function", `f(spec, kernel_size, *parameters) -> Tensor`, its positive semidefinite
            matrix (d, d) in float64.
    """

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Return the one or two parameters that are fitted, each with the range that is searched."""
        raise NotImplementedError


class ClosedFormFit(Fit, type="closed_form", impl="mimetic.covariance.closed_form:fit_matrix"):
    """The closed form of arXiv 2210.03651: one width."""

    padding: Padding = Field("wrap", description="As in the covariance `closed_form`.")
    psd: Literal["abs", "clip"] = Field("abs", description="As in the covariance `closed_form`.")
    convention: Convention = Field("variance", description="As in the covariance `closed_form`.")

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Return the range of widths: from a single pixel to more than any kernel."""
        low, high = 0.02, 1000.0
        return {"width": (low, high) if self.convention == "variance" else (low**0.5, high**0.5)}


class V1Fit(Fit, type="v1", impl="mimetic.covariance.receptive_fields:v1_fit_matrix"):
    """The covariance `v1` of random receptive fields: the size of the window and the smoothness."""

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Return the range of both in pixels."""
        return {"size": (0.3, 30.0), "smoothness": (0.3, 30.0)}


class Transferred(CovarianceSource):
    """Base of the covariances that are transferred from the layers of another network to ours."""

    refined_on_transfer: ClassVar[bool] = True
    """Whether `shrink` and `rank` apply on transfer: to what was measured before without them."""

    renamed: ClassVar[Mapping[str, str]] = {"between": "depth_matching", "keep": "preserve"}

    layers: Literal["depth", "name"] | dict[str, str] = Field(
        "depth",
        description="Which of its layers corresponds to which of ours: by depth fraction, by name, or a map "
        "from our layers' names to its.",
    )
    depth_matching: Literal["interpolate", "nearest"] = Field(
        "interpolate", description="What a depth between two of its layers gets (with `layers: depth`)."
    )
    depths: Annotated[tuple[Fraction, Fraction], FromList] = Field(
        (0.0, 1.0),
        description="Depth fractions of it that our first and our last layer take (with `layers: depth`).",
    )
    smooth: NonNegative = Field(
        0.0,
        description="Width in layers of a Gaussian average over its depth (with `layers: depth`).",
    )
    symmetrize: bool = Field(
        False, description="Average over the reflections of the kernel, and its quarter turns where square."
    )
    fit: Annotated[Fit, Registered("fit")] | None = Field(
        None,
        description="Formula that replaces the covariance of one channel, fitted to it at its own kernel.",
    )
    kind: Literal["conv", "depthwise_conv", "pointwise_conv", "linear"] | None = Field(
        None, description="Kind of its layers; the kind of the layer to be initialized unless given."
    )
    align_corners: bool = Field(False, description="How a kernel of another size is interpolated.")
    preserve: Literal["trace", "pixel", "nothing"] = Field(
        "trace",
        description="What a change of kernel size preserves: the filter's energy, each pixel's, or neither.",
    )
    channels: Literal["marginal", "tile"] = Field(
        "marginal",
        description="Where its filters see another number of input channels: the mean spatial covariance of "
        "one channel, or the channels repeated in turn.",
    )
    shrink: Fraction | Literal["auto"] = Field(
        0.0, description="Share of a multiple of the identity mixed in; auto is Ledoit and Wolf's."
    )
    rank: Count | None = Field(None, description="Keep only this many leading eigenvectors.")

    @model_validator(mode="after")
    def _depth_is_used(self) -> Self:
        for name in ("depths", "smooth"):
            if self.layers != "depth" and getattr(self, name) != type(self).model_fields[name].default:
                raise validation_error(
                    f"`{name}` applies where layers correspond by depth, and `layers` is another choice",
                    code="MIM-V219",
                    at=(name,),
                    hint=f"remove `{name}`, or write `layers: depth`",
                )
        return self


class Measured(
    Transferred,
    impl="mimetic.covariance.components:measured_on_network",
    layers="mimetic.covariance.measure:filter_layers",
):
    """Base of the covariances measured on a trained network.

    A section with a field `images` is given so many training images; one that `needs_initial` is given the
    network as it was initialized.
    """

    takes: ClassVar[Takes | None] = "harvest"
    refined_on_transfer = False

    from_: TrainedRefField = Field(alias="from", description="The trained network.")

    @property
    def needs_initial(self) -> bool:
        """Return whether the network at its initialization is needed, too."""
        return False


class WeightStatistic(Measured):
    """Base of the statistics of weights, or of their change in training."""

    of: Literal["weights", "change"] = Field(
        "weights", description="The weights, or their change since the network's own initialization."
    )

    @property
    def needs_initial(self) -> bool:
        """Return whether it is the change that is measured."""
        return self.of == "change"

    @model_validator(mode="after")
    def _initial_weights_known(self) -> Self:
        if self.of == "change" and self.from_.stage is None and self.from_.arm is None:
            hint = "take a stage or an arm, or write `of: weights`"
            raise validation_error(
                "`of: change` needs the weights before training, and of "
                f"`{{{self.from_.kind}: …}}` only those after it are known",
                code="MIM-V207",
                at=("of",),
                hint=hint,
            )
        return self


class Filters(
    WeightStatistic,
    type="filters",
    measure="mimetic.covariance.weights:measure_filters",
    layers="mimetic.covariance.measure:spatial_layers",
):
    """Empirical covariance of a trained network's filters over their pixels (arXiv 2210.03651)."""

    spatial = True

    centered: bool = Field(False, description="Subtract the mean filter.")


class Nfm(WeightStatistic, type="nfm", measure="mimetic.covariance.weights:measure_nfm"):
    """Neural feature matrix WᵀW of a trained network's layer (arXiv 2309.00570)."""

    normalize: Literal["sum", "mean"] = Field("sum", description="Sum or mean over the filters.")


def _one_or_half(value: float) -> float:
    if value not in {0.5, 1.0}:
        raise validation_error(
            f"must be 1 or 0.5, found {value:g}",
            code="MIM-V208",
            hint="1 is the matrix, 0.5 its square root",
        )
    return value


Power = Annotated[float, AfterValidator(_one_or_half), Field(json_schema_extra={"enum": [0.5, 1.0]})]
"""Power of an AGOP: the matrix or its square root."""


class Agop(
    Measured,
    type="agop",
    measure="mimetic.covariance.agop:measure_agop",
    layers="mimetic.covariance.measure:gradient_layers",
):
    """Average gradient outer product over patches of a trained network's layer (arXiv 2309.00570)."""

    power: Power = Field(1.0, description="1 for the matrix, 0.5 for its square root.")
    images: Count = Field(256, description="Training images the gradients are taken at.")
    outputs: Count | None = Field(None, description="Use the first so many outputs; all unless given.")
    probes: Count | None = Field(
        None, description="Random combinations of outputs instead of every one; exact unless given."
    )
    drop_bias: bool = Field(False, description="Drop each layer's own bias, as the paper's code does.")


class Learned(Measured, type="learned"):
    """Covariance of patches that RFM, ConvRFM or Deep ConvRFM learned without backpropagation."""

    takes = "learned"
    refined_on_transfer = True

    @model_validator(mode="after")
    def _from_a_learner(self) -> Self:
        if self.from_.stage is None and self.from_.trial is None:
            hint = "write `from: {stage: …}` with a stage that has a `learner`, or `from: {trial: …}`"
            raise validation_error(
                "what a learner learned is in a stage or a trial",
                code="MIM-V209",
                at=("from", self.from_.kind),
                hint=hint,
            )
        return self


class Patches(
    CovarianceSource,
    type="patches",
    impl="mimetic.covariance.components:patches_of_images",
    measure="mimetic.covariance.patches:measure_patches",
    layers="mimetic.covariance.measure:first_convolution",
):
    """Covariance of the training images' patches, as the layer would see them: for first layers."""

    takes = "harvest"

    images: Count = Field(1000, description="Training images the patches are taken from.")
    whiten: bool = Field(False, description="Draw from the inverse, so that outputs come out white.")
    epsilon: Positive = Field(1e-2, description="Added to the eigenvalues before they are inverted.")


class CovarianceFile(Transferred, type="file", impl="mimetic.covariance.components:from_file"):
    """Covariances harvested before, from a file `mimetic harvest` wrote."""

    path: str = Field(min_length=1, description="The covariance file (safetensors).")


class AtlasEntry(Transferred, type="atlas", impl="mimetic.covariance.components:from_atlas"):
    """Covariances of a trained network from the atlas, which comes with this package."""

    example: ClassVar[Mapping[str, object]] = {
        "name": "convmixer-64-8-k7-p2-cifar10",
        "kind": "depthwise_conv",
    }

    name: str = Field(min_length=1, description="Name of the entry; `mimetic ls atlas` lists them.")
