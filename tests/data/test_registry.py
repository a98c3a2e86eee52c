"""Every registered data set, plug-ins' included: described as loaded, reproducible, in range."""

import pytest
import torch

from mimetic.config.registry import registered
from mimetic.data.config import DataSection, ImageData
from mimetic.data.dataset import IGNORED, Dataset
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.errors import UserError

NAMES = list(registered("data"))


def loaded(name: str, **fields: object) -> tuple[DataSection, Dataset]:
    """Load the example of a data set, or skip the test if its files are not there."""
    section = registered("data")[name]
    spec = section.model_validate({**section.example, **fields})
    assert isinstance(spec, DataSection)
    try:
        return spec, load_dataset(spec)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_description_equals_what_is_loaded(name: str) -> None:
    """The shape known before loading is the shape of the examples, resized ones included."""
    spec, dataset = loaded(name)
    assert dataset.name == name
    assert describe_dataset(spec) == dataset.shape
    if isinstance(spec, ImageData):
        resized, dataset = loaded(name, image_size=9)
        assert describe_dataset(resized) == dataset.shape
        assert tuple(dataset.pixels(1).shape[2:]) == (9, 9)


@pytest.mark.parametrize("name", NAMES)
def test_loading_is_reproducible(name: str) -> None:
    """The same section gives the same bytes."""
    spec, dataset = loaded(name)
    assert load_dataset(spec).digest == dataset.digest


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_targets_are_in_range(name: str) -> None:
    """Targets are classes or ignored, images are bytes, and every split has examples."""
    spec, dataset = loaded(name)
    for split in (dataset.train, *dataset.splits().values()):
        assert len(split) > 0
        targets = split.labels[split.labels != IGNORED]
        assert 0 <= int(targets.min()) <= int(targets.max()) < dataset.num_classes
        assert split.num_targets() == len(targets)
        assert split.inputs.dtype == (torch.uint8 if spec.provides == "images" else torch.int64)


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(registered("data")[n], ImageData)])
def test_validation_split_is_taken_from_the_training_images(name: str) -> None:
    """Both together have as many images as the set has for training."""
    _, whole = loaded(name)
    _, split = loaded(name, val_size=3)
    assert split.val is not None
    assert (len(split.val), len(split.train)) == (3, len(whole.train) - 3)
