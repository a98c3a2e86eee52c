"""What the verbs measure: a network with its weights, and the images it is shown; see `options`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mimetic.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mimetic.data.config import DataSection
    from mimetic.data.dataset import Dataset
    from mimetic.models.config import Model
    from mimetic.surgery.config import Rewrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A network and its data as the command line names them.

    Attributes:
        model: The network's section; None where trials are named, which know their own.
        data: The data's section; None where no images are needed or given.
        checkpoint: File of its weights.
        weights: Name of published weights.
        surgery: What is rewritten in it.
        classes: Number of its outputs; that of the data, or of ImageNet, unless given.
        allow_code: Whether a `type: python` model may run.
    """

    model: "Model | None" = None
    data: "DataSection | None" = None
    checkpoint: Path | None = None
    weights: str | None = None
    surgery: "tuple[Rewrite, ...]" = ()
    classes: int | None = None
    allow_code: bool = False

    @property
    def origin(self) -> str:
        """Return the network's name for messages and plans."""
        assert self.model is not None
        name = getattr(self.model, "name", None)
        kind = self.model.type_name()
        loaded = f"weights {self.weights}" if self.checkpoint is None else self.checkpoint.name
        return f"{kind if name is None else f'{kind}:{name}'} ({loaded})"


def asked(
    model: str | None,
    recipe: Path | None,
    arm: str | None,
    *,
    data: str | None,
    path: str | None,
    checkpoint: Path | None = None,
    weights: str | None = None,
    classes: int | None = None,
    allow_code: bool = False,
) -> Asked:
    """Return what the options of `options` ask for, network, data and surgery from a recipe or from names.

    Raises:
        UserError: If there is no network, or two, or a name is unknown.
    """
    from mimetic.models.config import parse_model_argument

    if (model is None) == (recipe is None):
        raise UserError("which network? give either --model SOURCE:NAME or --recipe FILE")
    if path is not None and data is None:
        raise UserError("--path is the folder of `--data image_folder`, which is missing")
    said = Asked(checkpoint=checkpoint, weights=weights, classes=classes, allow_code=allow_code)
    if recipe is not None:
        from mimetic.api import choose_arm
        from mimetic.recipe.load import load

        loaded = load(recipe)
        chosen = loaded.arms[choose_arm(loaded, arm)]
        if chosen.model is None:
            raise UserError(f"{recipe}: there is no model in it; name one with --model instead of --recipe")
        said = replace(said, model=chosen.model, data=chosen.data, surgery=chosen.surgery)
    elif model is not None:
        said = replace(said, model=parse_model_argument(model))
    return said if data is None else replace(said, data=data_section(data, path))


def data_section(name: str, path: str | None) -> "DataSection":
    """Return the section that `--data NAME --path FOLDER` stands for.

    Raises:
        UserError: If there is no such type of data, or the folder is missing or not wanted.
    """
    from difflib import get_close_matches

    from mimetic.config.registry import registered
    from mimetic.data.config import DataSection

    types = registered("data")
    if name not in types:
        close = get_close_matches(name, types, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise UserError(f"--data: there is no data type `{name}`; {hint}types: {', '.join(types)}")
    takes = "path" in types[name].model_fields
    if takes != (path is not None):
        wanted = "needs --path FOLDER" if takes else "takes no --path"
        raise UserError(f"--data: `{name}` {wanted}")
    found = types[name].model_validate({"path": path} if takes else {})
    assert isinstance(found, DataSection)
    return found


def load_images(subject: Asked, count: int | None, *, image_size: int | None) -> "Dataset | None":
    """Load as many training images as are needed; none where the statistic looks at none.

    Raises:
        UserError: If they are needed and no data is named, or they cannot be loaded.
    """
    from mimetic.data.load import load_dataset

    if count is None:
        return None
    if subject.data is None:
        raise UserError("this statistic looks at images: give --data TYPE, e.g. --data cifar10")
    if subject.data.holds != "images":
        said = f"this statistic looks at images, and `{subject.data.type_name()}` holds {subject.data.holds}"
        raise UserError(f"{said}; give --data TYPE, e.g. --data cifar10")
    changes: dict[str, int] = {"train_size": count, "test_size": 1, "val_size": 0}
    if image_size is not None:
        changes["image_size"] = image_size
    return load_dataset(subject.data.model_copy(update=changes))


def normalized(dataset: "Dataset", mean: str | None, std: str | None) -> "Tensor":
    """Return the training images as the network saw them.

    Raises:
        UserError: If mean and standard deviation are not one number for each channel.
    """
    import torch

    from mimetic.train.batches import decoder

    channels = dataset.shape.channels
    means = dataset.mean if mean is None else _numbers("--mean", mean, channels)
    stds = dataset.std if std is None else _numbers("--std", std, channels)
    if min(stds) <= 0.0:
        raise UserError(f"--std: standard deviations lie above 0, not {std}")
    decode = decoder(means, stds, device=torch.device("cpu"), channels_last=False)
    return decode(dataset.pixels(len(dataset.train)))


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        example = ",".join(["0.5"] * count)
        raise UserError(f"{option}: expected {count} numbers such as {example}, found {text!r}")
    return values


def network(subject: Asked, dataset: "Dataset | None") -> "nn.Module":
    """Build the network and load its weights.

    Raises:
        UserError: If weights are named twice or not at all, are missing, or are of another network.
    """
    from mimetic.models.checkpoint import load_weights
    from mimetic.models.published import load_published

    if (subject.checkpoint is None) == (subject.weights is None):
        raise UserError("which weights? give either --checkpoint FILE or --weights NAME, e.g. DEFAULT")
    built = untrained(subject, dataset, seed=0)
    assert subject.model is not None
    if subject.checkpoint is not None:
        load_weights(built, subject.checkpoint)
    elif subject.weights is not None:
        load_published(built, subject.model, subject.weights)
    return built


def untrained(subject: Asked, dataset: "Dataset | None", *, seed: int) -> "nn.Module":
    """Build the network with its own initialization, surgery included."""
    from mimetic.data.load import describe_dataset
    from mimetic.data.shapes import DataShape
    from mimetic.study.planning.sites import IMAGENET
    from mimetic.surgery.network import build_network

    shape: DataShape = IMAGENET
    if dataset is not None:
        shape = dataset.shape
    elif subject.data is not None:
        shape = describe_dataset(subject.data)
    shape = shape if subject.classes is None else replace(shape, num_classes=subject.classes)
    allowed = subject.allow_code
    assert subject.model is not None
    return build_network(subject.model, subject.surgery, shape=shape, seed=seed, allow_code=allowed).model
