"""Estimate what a recipe costs before anything is built, and refuse what was hardly meant.

The estimates are rough: the limits leave ordinary use alone by orders of magnitude, and each can be raised.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mimetic.config.address import ConfigPath
from mimetic.config.base import Section
from mimetic.config.errors import Issue, Step
from mimetic.data.config import DataSection, ImageData
from mimetic.data.shapes import ImageShape
from mimetic.kernels.config import Convolutional, Iterated, Learner
from mimetic.limits import ARGUMENT, DATA_BYTES, EPOCHS, KERNEL_BYTES, LAYERS, PARAMETERS, TRIALS, Limit
from mimetic.models.config import Model
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.stages import origins, values_in

_Part = TypeVar("_Part", bound=Section)


@dataclass(frozen=True)
class _Bound(Generic[_Part]):
    """An amount that a part of a recipe needs, its limit, and the code of the error."""

    amount: Callable[[_Part], float]
    limit: Limit
    code: str


_PARAMETERS = _Bound[Model](
    lambda model: model.cost()[0] + (model.num_classes or 0) + (model.in_channels or 0),
    PARAMETERS,
    "MIM-R093",
)
_LAYERS = _Bound[Model](lambda model: model.cost()[1], LAYERS, "MIM-R094")
_DATA = _Bound[DataSection](lambda data: data.num_bytes(), DATA_BYTES, "MIM-R092")


def cost_issues(recipe: Recipe) -> list[Issue]:
    """Return an issue, at its line and with the estimate, for each part that exceeds a limit."""
    issues = list(_study_issues(recipe))
    for at in recipe.addresses():
        issues += _arm_issues(recipe.section(at), at)
    return issues


def _study_issues(recipe: Recipe) -> Iterator[Issue]:
    trials = len(recipe.seeds) * (len(recipe.arms) + len(recipe.stages))
    if TRIALS.is_exceeded_by(trials):
        message = f"the study has {TRIALS.describe(trials)}"
        yield Issue(message, ("seeds",), recipe.where("seeds"), TRIALS.repair, code="MIM-R090")


def _arm_issues(arm: Arm, at: ConfigPath) -> Iterator[Issue]:
    models = [
        ((*path, "model"), ref.model) for path, ref in origins(arm.init, ("init",)) if ref.model is not None
    ]
    for path, model in [(("model",), arm.model), *models]:
        if model is not None:
            yield from _model_issues(model, at, path)
    if arm.train is not None and EPOCHS.is_exceeded_by(arm.train.epochs):
        message = f"{at} trains for {EPOCHS.describe(arm.train.epochs)}"
        yield at.issue(message, "train", "epochs", hint=EPOCHS.repair, code="MIM-R091")
    if arm.data is not None:
        yield from _exceeded(arm.data, _DATA, at, ("data",))
    if arm.learner is not None:
        yield from _learner_issues(arm.learner, arm.data, at)


def _model_issues(model: Model, at: ConfigPath, path: tuple[Step, ...]) -> Iterator[Issue]:
    yield from _exceeded(model, _PARAMETERS, at, path)
    yield from _exceeded(model, _LAYERS, at, path)
    arguments = getattr(model, "args", None)
    for place, number in (*values_in(arguments, int), *values_in(arguments, float)):
        if ARGUMENT.is_exceeded_by(abs(number)):
            message = f"{at}: a number of {ARGUMENT.describe(abs(number))}"
            yield at.issue(message, *path, "args", *place, hint=ARGUMENT.repair, code="MIM-R095")


def _learner_issues(learner: Learner, data: DataSection | None, at: ConfigPath) -> Iterator[Issue]:
    shape = None if data is None else data.native_shape()
    channels = shape.channels if isinstance(shape, ImageShape) else 3
    images = _num_training(data) if isinstance(data, ImageData) else 0
    kernel = _Bound[Learner](lambda part: part.num_bytes(images, channels), KERNEL_BYTES, "MIM-R096")
    yield from _exceeded(learner, kernel, at, ("learner",))
    if isinstance(learner, Convolutional) and LAYERS.is_exceeded_by(learner.depth):
        message = f"{at} has {LAYERS.describe(learner.depth)}"
        yield at.issue(message, "learner", "depth", hint=LAYERS.repair, code="MIM-R097")
    if isinstance(learner, Iterated) and EPOCHS.is_exceeded_by(learner.rounds):
        message = f"{at} learns for {EPOCHS.describe(learner.rounds)}"
        yield at.issue(message, "learner", "rounds", hint=EPOCHS.repair, code="MIM-R098")


def _num_training(data: ImageData) -> int:
    """Return how many training images there are, 0 if it is unknown before loading."""
    return int(getattr(data, "count", data.num_stored)) if data.train_size is None else data.train_size


def _exceeded(part: _Part, bound: _Bound[_Part], at: ConfigPath, path: tuple[Step, ...]) -> Iterator[Issue]:
    """Yield an issue at the field to which an amount beyond its limit is due most."""
    total = _estimated(part, bound)
    if bound.limit.is_exceeded_by(total):
        fields = {
            n: f for n, f in type(part).model_fields.items() if n in part.model_fields_set and n != "type"
        }
        examples = getattr(part, "example", {})
        without = {
            name: _estimated(part.model_copy(update={name: examples.get(name, field.default)}), bound)
            for name, field in fields.items()
            if not field.is_required() or name in examples
        }
        least = min(without, key=lambda name: without[name], default=None)
        keys = (*path, least) if least is not None and without[least] < total else path
        message = f"{at} needs {bound.limit.describe(total)}, by an estimate"
        yield at.issue(message, *keys, hint=bound.limit.repair, code=bound.code)


def _estimated(part: _Part, bound: _Bound[_Part]) -> float:
    try:
        return float(bound.amount(part))
    except OverflowError:
        return float("inf")
