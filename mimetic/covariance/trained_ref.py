"""The `from:` of a section: which trained network. No torch."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mimetic.config.base import Count, FromList, Name, Section, listed_once, validation_error
from mimetic.config.errors import clipped
from mimetic.config.patterns import Regex
from mimetic.config.registry import Registered
from mimetic.config.suggest import listed
from mimetic.config.text.tree import shown
from mimetic.models.config import Model

TensorKind = Literal["conv", "depthwise_conv", "pointwise_conv", "conv_transpose", "linear", "embedding"]
"""Kinds of layers that a stored weight may belong to."""

TENSOR_FILES = (".npz", ".onnx")
"""Ends of names of files that contain weights, but no state dict of a network."""


def _one_pattern(value: object) -> object:
    """Return a list of a single pattern."""
    return [value] if isinstance(value, str) else value


SomeSeeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(min_length=1),
    FromList,
    AfterValidator(listed_once("seed")),
]


class TrainedRef(Section):
    """A trained network: a stage, an arm, a trial, a checkpoint, a published model, or weights alone."""

    expected: ClassVar[str] = "a map such as `{stage: small}`"
    alternatives: ClassVar[tuple[str, ...]] = (
        *("stage", "arm", "trial", "run"),
        *("checkpoint", "weights", "tensors"),
    )

    stage: Name | None = Field(None, description="Name of a stage of this recipe, trained first.")
    arm: Name | None = Field(None, description="Name of another arm of this recipe, trained before ours.")
    seeds: Literal["own", "all"] | SomeSeeds = Field(
        "own",
        description="Which of its seeds, measured apart and averaged: the trial's own (all of them "
        "where the stage has its own `seeds`), all, or a list.",
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
    head: Count | None = Field(
        None,
        description="Replace the last linear layer or convolution of a trained `model` by an untrained one "
        "of so many outputs, the same for all seeds.",
    )
    tensors: str | None = Field(
        None,
        min_length=1,
        description="Weights in a file, without their network: safetensors, PyTorch state dict, npz or ONNX.",
    )
    layers: Annotated[
        tuple[Regex, ...] | None,
        FromList,
        BeforeValidator(_one_pattern, json_schema_input_type=Regex | tuple[Regex, ...]),
    ] = Field(
        None,
        description="Which of its layers: a regular expression for their whole names, or a list; of a list, "
        "layers of the first pattern come first.",
    )
    tensor_kind: TensorKind | None = Field(
        None, alias="kind", description="Their kind, where shapes do not decide it: c×1×k×k is depthwise."
    )

    @property
    def kind(self) -> str:
        """Return the key that names the network, e.g. `stage`."""
        return next(name for name in self.alternatives if getattr(self, name) is not None)

    @property
    def display_name(self) -> str:
        """Return the network's name in plans and messages, e.g. `stage small`."""
        if self.model is None or self.weights is None:
            return f"{self.kind} {getattr(self, self.kind)}"
        return f"{getattr(self.model, 'name', self.model.type_name())} with weights {self.weights}"

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in self.alternatives if getattr(self, name) is not None]
        if not given and self.model is not None:
            hint = "add `checkpoint: …`, a file with them, or `weights: DEFAULT` for published ones"
            raise validation_error("`model` alone has no trained weights", code="MIM-V201", hint=hint)
        if len(given) != 1:
            found = " and ".join(f"`{name}`" for name in given) if given else "nothing"
            hint = "keep one of them" if given else "write, for example, `{stage: small}`"
            raise validation_error(
                f"give one of {listed(self.alternatives)}, found {found}",
                code="MIM-V202",
                at=tuple(given[1:2]),
                hint=hint,
            )
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.tensors is None and (self.layers is not None or self.tensor_kind is not None):
            raise validation_error(
                f"`layers` and `kind` choose among `tensors`, and this is a {self.kind}",
                code="MIM-V213",
                at=("kind" if self.layers is None else "layers",),
                hint="write them beside `from`, or name a file of `tensors`",
            )
        if self.seeds != "own" and self.stage is None and self.arm is None:
            raise validation_error(
                f"`seeds` chooses among the seeds of a stage or an arm, and this is a {self.kind}",
                code="MIM-V203",
                at=("seeds",),
                hint="remove it",
            )
        if self.weights is not None and self.model is None:
            hint = "name it, for example `model: {type: torchvision, name: resnet18}`"
            raise validation_error(
                "`weights` are those of a published model, which is missing", code="MIM-V204", hint=hint
            )
        if self.head is not None and (self.model is None or self.kind not in {"checkpoint", "weights"}):
            raise validation_error(
                "`head` replaces the last layer of a trained `model`, and there is none",
                code="MIM-V210",
                at=("head",),
                hint="remove it, or give a `model` and its `weights` or `checkpoint`",
            )
        if self.model is not None and self.checkpoint is None and self.weights is None:
            hint = f"remove it: a {self.kind} knows its own model"
            raise validation_error(
                "`model` is the network of a `checkpoint` or of `weights`",
                code="MIM-V205",
                at=("model",),
                hint=hint,
            )
        return self


def _refuse_text(value: Any) -> Any:
    """Refuse a plain text: it could be the name of a stage, or a path."""
    if isinstance(value, str):
        key = "checkpoint" if "/" in value or value.endswith((".safetensors", ".pt", ".pth")) else "stage"
        key = "tensors" if value.endswith(TENSOR_FILES) else key
        hint = f"write `from: {{{key}: {clipped(value)}}}`"
        raise validation_error(
            f"expected {TrainedRef.expected}, found {shown(value)}", code="MIM-V206", hint=hint
        )
    return value


TrainedRefField = Annotated[TrainedRef, BeforeValidator(_refuse_text, json_schema_input_type=TrainedRef)]


class AttentionRef(TrainedRef):
    """What has statistics of attention: an entry of the atlas, a file of them, or a trained network."""

    alternatives: ClassVar[tuple[str, ...]] = ("atlas", "file", *TrainedRef.alternatives)

    atlas: str | None = Field(
        None, min_length=1, description="Entry of the atlas; `mimetic ls atlas` lists them."
    )
    file: str | None = Field(
        None, min_length=1, description="File that `mimetic harvest --statistic attention` wrote."
    )

    @model_validator(mode="after")
    def _heads_known(self) -> Self:
        if self.tensors is not None:
            raise validation_error(
                "`tensors` are weights alone, without the size of a head",
                code="MIM-V220",
                at=("tensors",),
                hint="give the network, too: `{checkpoint: FILE, model: …}`",
            )
        return self


AttentionRefField = Annotated[
    AttentionRef, BeforeValidator(_refuse_text, json_schema_input_type=AttentionRef)
]
