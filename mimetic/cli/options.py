"""Options that several verbs share, as dataclasses that a verb takes whole.

`expand` turns each field of such a dataclass into an option of the verb.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mimetic.cli import completion
from mimetic.cli.console import AllowCode, ArmName, ModelName, Overrides, Root
from mimetic.config.suggest import did_you_mean
from mimetic.errors import UserError
from mimetic.study.layout import DEFAULT_ROOT

if TYPE_CHECKING:
    from torch import Tensor

    from mimetic.data.config import DataSection
    from mimetic.data.dataset import Dataset
    from mimetic.sources.trained import TrainedSource


def expand(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose parameters that are dataclasses are replaced by one option for each field."""
    groups: dict[str, type[Any]] = {}
    parameters: list[Parameter] = []
    for parameter in signature(verb).parameters.values():
        group = parameter.annotation
        if not is_dataclass(group):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(group, type)
        groups[parameter.name] = group
        for field in fields(group):
            default = Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
            )

    def expanded(**values: Any) -> None:
        packed = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**values, **packed)

    expanded.__name__, expanded.__doc__ = verb.__name__, verb.__doc__
    expanded.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What of a recipe is planned, and against which model."""

    arm: ArmName = None
    model: ModelName = None
    overrides: Overrides = None
    root: Root = DEFAULT_ROOT
    allow_code: AllowCode = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """The network that is measured."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE:NAME",
            help="The network, e.g. timm:convnext_tiny.",
            autocompletion=completion.models,
        ),
    ] = None
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Take model and data from a recipe instead."),
    ] = None
    arm: Annotated[
        str | None,
        typer.Option("--arm", metavar="NAME", help="Arm of that recipe.", autocompletion=completion.arms),
    ] = None
    classes: Annotated[
        int | None,
        typer.Option("--classes", metavar="COUNT", min=1, help="Its outputs; the data's unless given."),
    ] = None
    allow_code: AllowCode = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOptions:
    """The weights it has."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="Its weights: safetensors or a PyTorch state dict."
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="NAME", help="Or published ones of torchvision or timm, e.g. DEFAULT."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """The images it is measured on."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="TYPE",
            help="Images the network is measured on, e.g. cifar10.",
            autocompletion=completion.data,
        ),
    ] = None
    path: Annotated[
        str | None, typer.Option("--path", metavar="FOLDER", help="Folder of `--data image_folder`.")
    ] = None
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="PIXELS", min=1, help="Resize images to this side.")
    ] = None
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="R,G,B", help="Normalize by this mean instead of the data's."),
    ] = None
    std: Annotated[
        str | None, typer.Option("--std", metavar="R,G,B", help="And by this standard deviation.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """How it is measured."""

    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Kind of layers, e.g. conv; may be repeated; all unless given."
        ),
    ] = None
    probes: Annotated[
        str | None,
        typer.Option(
            "--probes",
            metavar="COUNT|exact",
            help="Random combinations of outputs per image, or `exact`: every output.",
        ),
    ] = None
    drop_bias: Annotated[
        bool, typer.Option("--drop-bias", help="Drop each layer's own bias, as the paper's code.")
    ] = False
    seed: Annotated[
        int, typer.Option("--seed", metavar="SEED", help="Seed of random probes and untrained networks.")
    ] = 0
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto"

    def probe_count(self) -> int | Literal["exact"] | None:
        """Return the number of probes, or `exact`.

        Raises:
            UserError: If it is neither.
        """
        if self.probes is None:
            return None
        if self.probes == "exact":
            return "exact"
        if not self.probes.isdecimal() or int(self.probes) < 1:
            raise UserError(
                f"--probes: expected a number of at least 1 or `exact`, found {self.probes!r}",
                code="MIM-X132",
            )
        return int(self.probes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network, and the images it is measured on.

    The source is None where trials are named, which know their own; the images, where none are needed.
    """

    source: "TrainedSource | None"
    dataset: "Dataset | None"
    images_NCHW: "Tensor | None"


def subject_of(
    network: NetworkOptions,
    images: ImageOptions,
    *,
    count: int | None,
    weights: WeightOptions | None = None,
    default: "DataSection | None" = None,
    required: bool = True,
) -> Subject:
    """Return the network and the images that options name.

    `count` is None if no images are needed, `weights` where they are named elsewhere. `default` are the data
    where the options name none.

    Raises:
        UserError: If there is no network or two, weights or images are missing, or a name is unknown.
    """
    from mimetic.data.load import describe_dataset

    if images.path is not None and images.data is None:
        raise UserError("--path is the folder of `--data image_folder`, which is missing", code="MIM-X101")
    named = network.model is not None or network.recipe is not None
    source, own_data = _network(network) if named or required else (None, None)
    section = default if own_data is None else own_data
    if images.data is not None:
        section = data_section(images.data, images.path)
    if source is not None and weights is not None:
        source = _with_weights(source, weights)
    dataset = None if count is None else _load_images(section, count, images.image_size)
    if source is not None:
        described = None if section is None or dataset is not None else describe_dataset(section)
        shape = described if dataset is None else dataset.shape
        source = replace(source, shape=shape, num_classes=network.classes)
    images_NCHW = None if dataset is None else _normalized(dataset, images)
    return Subject(source=source, dataset=dataset, images_NCHW=images_NCHW)


def _network(options: NetworkOptions) -> "tuple[TrainedSource, DataSection | None]":
    """Return the network that options name, without weights, and the data of its recipe."""
    from mimetic.models.config import parse_model_argument
    from mimetic.sources.trained import TrainedSource

    if (options.model is None) == (options.recipe is None):
        raise UserError("which network? give either --model SOURCE:NAME or --recipe FILE", code="MIM-X102")
    if options.recipe is None:
        model = parse_model_argument(str(options.model))
        return TrainedSource(name=_model_name(model), model=model, allow_code=options.allow_code), None
    from mimetic.api.starting import choose_arm
    from mimetic.recipe.load import load

    recipe = load(options.recipe)
    arm = recipe.arms[choose_arm(recipe, options.arm)]
    if arm.model is None:
        raise UserError(
            f"{options.recipe}: there is no model in it; name one with --model instead of --recipe",
            code="MIM-X103",
        )
    source = TrainedSource(
        name=_model_name(arm.model), model=arm.model, surgery=arm.surgery, allow_code=options.allow_code
    )
    return source, arm.data


def _model_name(model: Any) -> str:
    name = getattr(model, "name", None)
    return str(model.type_name()) if name is None else f"{model.type_name()}:{name}"


def _with_weights(source: "TrainedSource", options: WeightOptions) -> "TrainedSource":
    """Return a network with the weights that options name.

    Raises:
        UserError: If they are named twice or not at all.
    """
    if (options.checkpoint is None) == (options.weights is None):
        raise UserError(
            "which weights? give either --checkpoint FILE or --weights NAME, e.g. DEFAULT", code="MIM-X104"
        )
    label = f"weights {options.weights}" if options.checkpoint is None else options.checkpoint.name
    return replace(
        source, name=f"{source.name} ({label})", weights=options.checkpoint, published=options.weights
    )


def data_section(name: str, path: str | None) -> "DataSection":
    """Return the section that `--data NAME --path FOLDER` means.

    Raises:
        UserError: If there is no such type of data, or the folder is missing or superfluous.
    """
    from mimetic.config.registry import registered
    from mimetic.data.config import DataSection

    types = registered("data")
    if name not in types:
        hint = f"{did_you_mean(name, types) or ''} types: {', '.join(types)}".lstrip()
        raise UserError(f"--data: there is no data type `{name}`; {hint}", code="MIM-X105")
    takes = "path" in types[name].model_fields
    if takes != (path is not None):
        repair = "needs --path FOLDER" if takes else "takes no --path"
        raise UserError(f"--data: `{name}` {repair}", code="MIM-X106")
    found = types[name].model_validate({"path": path} if takes else {})
    assert isinstance(found, DataSection)
    return found


def _load_images(section: "DataSection | None", count: int, image_size: int | None) -> "Dataset":
    """Load as many training images as are needed."""
    from mimetic.data.load import load_dataset

    if section is None:
        raise UserError("this statistic needs images: give --data TYPE, e.g. --data cifar10", code="MIM-X107")
    if section.provides != "images":
        raise UserError(
            f"this statistic needs images, and `{section.type_name()}` has {section.provides}; "
            "give --data TYPE, e.g. --data cifar10",
            code="MIM-X108",
        )
    changes: dict[str, int] = {"train_size": count, "test_size": 1, "val_size": 0}
    if image_size is not None:
        changes["image_size"] = image_size
    return load_dataset(section.model_copy(update=changes))


def _normalized(dataset: "Dataset", options: ImageOptions) -> "Tensor":
    """Return the training images as the network saw them."""
    import torch

    from mimetic.train.batches import decoder

    channels = dataset.shape.channels
    means = dataset.mean if options.mean is None else _numbers("--mean", options.mean, channels)
    stds = dataset.std if options.std is None else _numbers("--std", options.std, channels)
    if min(stds) <= 0.0:
        raise UserError(f"--std: standard deviations must be above 0, found {options.std}", code="MIM-X109")
    decode = decoder(means, stds, device=torch.device("cpu"), channels_last=False)
    return decode(dataset.pixels(len(dataset.train)))


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        example = ",".join(["0.5"] * count)
        raise UserError(
            f"{option}: expected {count} numbers such as {example}, found {text!r}", code="MIM-X110"
        )
    return values
