"""Covariances measured on trained networks and on data: from where, which statistic, carried over how."""

from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mimetic.recipe.base import (
    Count,
    Fraction,
    FromList,
    Name,
    Positive,
    Section,
    Spec,
    listed_once,
    mistake,
)
from mimetic.recipe.errors import clipped
from mimetic.recipe.model import Model
from mimetic.recipe.registry import Registered, register
from mimetic.recipe.suggest import listed
from mimetic.recipe.text.tree import shown

SomeSeeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(min_length=1),
    FromList,
    AfterValidator(listed_once("seed")),
]


class Origin(Section):
    """A trained network: a stage or an arm of the recipe, a trial, a checkpoint, or a published model."""

    expected: ClassVar[str] = "a map such as `{stage: small}`"
    alternatives: ClassVar[tuple[str, ...]] = ("stage", "arm", "trial", "run", "checkpoint", "weights")

    stage: Name | None = Field(None, description="Name of a stage of this recipe, trained first.")
    arm: Name | None = Field(None, description="Name of another arm of this recipe, trained before ours.")
    seeds: Literal["own", "all"] | SomeSeeds = Field(
        "own",
        description="Which of its seeds, measured apart and averaged: the trial's own (all of them "
        "where the stage has `seeds` of its own), all, or a list.",
    )
    trial: str | None = Field(None, min_length=1, description="Folder of a finished trial of ours.")
    run: str | None = Field(
        None, pattern=r"^[0-9a-f]{32}$", description="Id of the MLflow run of a finished trial of ours."
    )
    checkpoint: str | None = Field(
        None, min_length=1, description="Weights in a file: safetensors, or a PyTorch state dict."
    )
    model: Annotated[Model, Registered("model")] | None = Field(
        None, description="The network the checkpoint fits; the arm's own model unless given."
    )
    weights: str | None = Field(
        None, min_length=1, description="Published weights of a torchvision or timm `model`, e.g. DEFAULT."
    )

    @property
    def way(self) -> str:
        """Return the key that says where the network is, e.g. `stage`."""
        return next(name for name in self.alternatives if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        said = [name for name in self.alternatives if getattr(self, name) is not None]
        if not said and self.model is not None:
            hint = "add `checkpoint: …`, a file that holds them, or `weights: DEFAULT` for published ones"
            raise mistake("`model` alone has no trained weights", hint=hint)
        if len(said) != 1:
            found = " and ".join(f"`{name}`" for name in said) if said else "nothing"
            hint = "keep one of them" if said else "write, for example, `{stage: small}`"
            message = f"give one of {listed(self.alternatives)}, found {found}"
            raise mistake(message, at=tuple(said[1:2]), hint=hint)
        if self.seeds != "own" and self.stage is None and self.arm is None:
            message = f"`seeds` chooses among the seeds of a stage or an arm, and this is a {said[0]}"
            raise mistake(message, at=("seeds",), hint="remove it")
        if self.weights is not None and self.model is None:
            hint = "say which, for example `model: {type: torchvision, name: resnet18}`"
            raise mistake("`weights` are those of a published model, which is missing", hint=hint)
        if self.model is not None and self.checkpoint is None and self.weights is None:
            hint = f"remove it: a {said[0]} knows its own model"
            raise mistake("`model` says what `checkpoint` or `weights` fit", at=("model",), hint=hint)
        return self


def _no_text(value: Any) -> Any:
    """Refuse a plain text: it could be the name of a stage, or a path."""
    if isinstance(value, str):
        key = "checkpoint" if "/" in value or value.endswith((".safetensors", ".pt", ".pth")) else "stage"
        hint = f"write `from: {{{key}: {clipped(value)}}}`"
        raise mistake(f"expected {Origin.expected}, found {shown(value)}", hint=hint)
    return value


class FromNetwork(Spec):
    """Base of the initializers that begin from a trained network itself, not from its covariances."""

    from_: Annotated[Origin, BeforeValidator(_no_text, json_schema_input_type=Origin)] = Field(
        alias="from", description="The trained network."
    )


class Carried(Spec):
    """Base of the covariances that come from another network's layers and are carried over to ours."""

    layers: Literal["depth", "name"] | dict[str, str] = Field(
        "depth",
        description="Which layer of it stands for which of ours: by depth fraction, by name, or a map "
        "from our layers' names to its.",
    )
    between: Literal["interpolate", "nearest"] = Field(
        "interpolate", description="What a depth between two of its layers gets (with `layers: depth`)."
    )
    kind: Literal["conv", "depthwise_conv", "pointwise_conv", "linear"] | None = Field(
        None, description="Kind of its layers; the kind of the layer to be initialized unless given."
    )
    align_corners: bool = Field(False, description="How a kernel of another size is interpolated.")
    keep: Literal["trace", "pixel", "nothing"] = Field(
        "trace",
        description="What a change of kernel size keeps: the filter's energy, each pixel's, or neither.",
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


class Measured(Carried):
    """Base of the covariances measured on a trained network."""

    from_: Annotated[Origin, BeforeValidator(_no_text, json_schema_input_type=Origin)] = Field(
        alias="from", description="The trained network."
    )


class _WithChange(Protocol):
    of: Literal["weights", "change"]
    from_: Origin


Changed = TypeVar("Changed", bound=_WithChange)


def _known_before(spec: Changed) -> Changed:
    """Refuse the change of a network of which only the end is known."""
    if spec.of == "change" and spec.from_.stage is None and spec.from_.arm is None:
        message = "`of: change` needs the weights before training, and of "
        message += f"`{{{spec.from_.way}: …}}` only those after it are known"
        raise mistake(message, at=("of",), hint="take a stage or an arm, or write `of: weights`")
    return spec


@register("covariance")
class Filters(Measured):
    """Empirical covariance of a trained network's filters over their pixels (arXiv 2210.03651)."""

    type: Literal["filters"] = "filters"
    of: Literal["weights", "change"] = Field(
        "weights", description="The filters, or their change since the network's own initialization."
    )
    centered: bool = Field(False, description="Subtract the mean filter.")

    _both_ends = model_validator(mode="after")(_known_before)


@register("covariance")
class Nfm(Measured):
    """Neural feature matrix WᵀW of a trained network's layer (arXiv 2309.00570)."""

    type: Literal["nfm"] = "nfm"
    of: Literal["weights", "change"] = Field(
        "weights", description="The weights, or their change since the network's own initialization."
    )
    normalize: Literal["sum", "mean"] = Field("sum", description="Sum or mean over the filters.")

    _both_ends = model_validator(mode="after")(_known_before)


def one_or_half(value: float) -> float:
    """Refuse powers other than 1 and 0.5."""
    if value not in {0.5, 1.0}:
        raise mistake(f"must be 1 or 0.5, found {value:g}", hint="1 is the matrix, 0.5 its square root")
    return value


@register("covariance")
class Agop(Measured):
    """Average gradient outer product over patches of a trained network's layer (arXiv 2309.00570)."""

    type: Literal["agop"] = "agop"
    power: Annotated[float, AfterValidator(one_or_half)] = Field(
        1.0,
        description="1 for the matrix, 0.5 for its square root.",
        json_schema_extra={"enum": [0.5, 1.0]},
    )
    images: Count = Field(256, description="Training images the gradients are taken at.")
    outputs: Count | None = Field(None, description="Use the first so many outputs; all unless given.")
    probes: Count | None = Field(
        None, description="Random combinations of outputs instead of every one; exact unless given."
    )
    drop_bias: bool = Field(False, description="Drop each layer's own bias, as the paper's code does.")


@register("covariance")
class Learned(Measured):
    """Covariance of patches that RFM, ConvRFM or Deep ConvRFM learned without backpropagation."""

    type: Literal["learned"] = "learned"

    @model_validator(mode="after")
    def _from_a_learner(self) -> Self:
        if self.from_.stage is None and self.from_.trial is None:
            hint = "write `from: {stage: …}` with a stage that has a `learner`, or `from: {trial: …}`"
            message = "what a learner learned is in a stage or a trial"
            raise mistake(message, at=("from", self.from_.way), hint=hint)
        return self


@register("covariance")
class Patches(Spec):
    """Covariance of the training images' patches, as the layer would see them: for first layers."""

    type: Literal["patches"] = "patches"
    images: Count = Field(1000, description="Training images the patches are taken from.")
    whiten: bool = Field(False, description="Draw from the inverse, so that outputs come out white.")
    epsilon: Positive = Field(1e-2, description="Added to the eigenvalues before they are inverted.")


@register("covariance")
class CovarianceFile(Carried):
    """Covariances harvested before, from a file `mimetic harvest` wrote."""

    type: Literal["file"] = "file"
    path: str = Field(min_length=1, description="The covariance file (safetensors).")
