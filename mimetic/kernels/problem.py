"""Input of a learner: images of three splits as stored, and their conversion to numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mimetic.data.dataset import Dataset, Images, Split, Tokens
from mimetic.errors import UserError
from mimetic.kernels.config import Learner
from mimetic.kernels.patches import Features, Progress, no_progress
from mimetic.streams import generator

Inputs = Literal["pixels", "standardized", "unit"]
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Images to train, select and test on.

    Attributes:
        train: Training images.
        val: Validation images; None if nothing is selected.
        test: Test images.
        classes: Number of classes.
        features: Converts stored images to floating point on the device that computes.
        seed: Seed of what the learner draws.
        progress: Called with the fraction of a round that is done.
    """

    train: Images
    val: Images | None
    test: Images
    classes: int
    features: Features
    seed: int = 0
    progress: Progress = no_progress

    def evaluation_splits(self) -> dict[str, Images]:
        """Return the splits that are not trained on, by name."""
        splits = {"val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


def make_problem(
    spec: Learner,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress = no_progress,
) -> Problem:
    """Return the input of a learner; the seed draws its training images.

    Raises:
        UserError: If more images are requested than there are, or there are none to validate on.
    """
    if spec.validation_use is not None and dataset.val is None:
        raise UserError(
            f"{spec.validation_use} needs validation images and there are none; set `data.val_size`",
            code="MIM-K020",
        )
    train, val, test = _images(dataset.train), _images(dataset.val), _images(dataset.test)
    assert train is not None
    assert test is not None
    if spec.images is not None:
        if spec.images > len(train):
            raise UserError(
                f"learner.images: {spec.images} requested, and the training split has {len(train)}; "
                "request fewer",
                code="MIM-K021",
            )
        order_N = torch.randperm(len(train), generator=generator(seed, "learner", "images"))
        chosen_M = order_N[: spec.images]
        train = Images(train.pixels_NCHW[chosen_M], train.labels_N[chosen_M])
    features = input_features(spec.inputs, dataset, device=device, dtype=dtype)
    return Problem(train, val, test, dataset.num_classes, features, seed, progress)


def _images(split: Split | None) -> Images | None:
    if isinstance(split, Tokens):
        raise UserError(
            "a `learner` learns from images, and these data are tokens; choose other data", code="MIM-K022"
        )
    return split


def input_features(
    inputs: Inputs, dataset: Dataset, *, device: torch.device, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Return the function from stored images to what is learned from."""
    mean_C11 = torch.tensor(dataset.mean, device=device, dtype=dtype)[:, None, None]
    std_C11 = torch.tensor(dataset.std, device=device, dtype=dtype)[:, None, None]

    def convert(pixels_NCHW: Tensor) -> Tensor:
        values_NCHW: Tensor = pixels_NCHW.to(device, dtype) / _WHITE
        if inputs == "standardized":
            values_NCHW = (values_NCHW - mean_C11) / std_C11
        elif inputs == "unit":
            norm_N111 = values_NCHW.flatten(1).norm(dim=1)[:, None, None, None]
            values_NCHW = values_NCHW / norm_N111.clamp(min=1.0 / _WHITE)
        return values_NCHW

    return convert
