"""Covariances measured on trained networks and on data: from where, which statistic, carried over how."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mimetic.recipe.base import Count, Fraction, FromList, Name, Positive, Section, Spec, mistake
from mimetic.recipe.model import Model
from mimetic.recipe.registry import Registered, register


class Origin(Section):
    """A trained network: a stage of the recipe, a trial of ours, a checkpoint, or a published model."""

    stage: Name | None = Field(None, description="Name of a stage of this recipe, trained first.")
    seeds: Literal["own", "all"] | Annotated[tuple[int, ...], FromList] = Field(
        "own", description="Which of the stage's seeds: the trial's own, all (their mean), or a list."
    )
    trial: str | None = Field(None, min_length=1, description="Folder of a finished trial of ours.")
    checkpoint: str | None = Field(
        None, min_length=1, description="Weights in a file: safetensors, or a PyTorch state dict."
    )
    model: Annotated[Model, Registered("model")] | None = Field(
        None, description="The network the checkpoint fits; the arm's own model unless given."
    )
    weights: str | None = Field(
        None, min_length=1, description="Published weights of a torchvision or timm `model`, e.g. DEFAULT."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        said = [
            name for name in ("stage", "trial", "checkpoint", "weights") if getattr(self, name) is not None
        ]
        if len(said) != 1:
            found = " and ".join(f"`{name}`" for name in said) if said else "nothing"
            raise mistake(
                f"give one of `stage`, `trial`, `checkpoint` or `weights` (with `model`), found {found}"
            )
        if self.weights is not None and self.model is None:
            raise mistake("`weights` are those of a published model: say which with `model`")
        if self.model is not None and self.checkpoint is None and self.weights is None:
            raise mistake("`model` says what a checkpoint fits: give `checkpoint` or `weights` with it")
        return self


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
    shrink: Fraction | Literal["auto"] = Field(
        0.0, description="Share of a multiple of the identity mixed in; auto is Ledoit and Wolf's."
    )
    rank: Count | None = Field(None, description="Keep only this many leading eigenvectors.")


class Measured(Carried):
    """Base of the covariances measured on a trained network."""

    from_: Origin = Field(alias="from", description="The trained network.")


@register("covariance")
class Filters(Measured):
    """Empirical covariance of a trained network's filters over their pixels (arXiv 2210.03651)."""

    type: Literal["filters"] = "filters"
    of: Literal["weights", "change"] = Field(
        "weights", description="The filters, or their change since the network's own initialization."
    )
    centered: bool = Field(False, description="Subtract the mean filter.")


@register("covariance")
class Nfm(Measured):
    """Neural feature matrix WᵀW of a trained network's layer (arXiv 2309.00570)."""

    type: Literal["nfm"] = "nfm"
    of: Literal["weights", "change"] = Field(
        "weights", description="The weights, or their change since the network's own initialization."
    )
    normalize: Literal["sum", "mean"] = Field("sum", description="Sum or mean over the filters.")


@register("covariance")
class Agop(Measured):
    """Average gradient outer product over patches of a trained network's layer (arXiv 2309.00570)."""

    type: Literal["agop"] = "agop"
    power: Literal[0.5, 1, 1.0] = Field(1.0, description="1 for the matrix, 0.5 for its square root.")
    images: Count = Field(256, description="Training images the gradients are taken at.")
    outputs: Count | None = Field(None, description="Use the first so many outputs; all unless given.")
    probes: Count | None = Field(
        None, description="Random combinations of outputs instead of every one; exact unless given."
    )
    drop_bias: bool = Field(False, description="Drop each layer's own bias, as the paper's code does.")


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
