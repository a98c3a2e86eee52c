"""What a learner is given: images of three splits as they are stored, and how they become numbers."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mimetic.data.dataset import Dataset, Images, Split, Tokens
from mimetic.errors import UserError
from mimetic.kernels.config import Learner
from mimetic.kernels.patches import Features
from mimetic.kernels.ridge import Score, one_hot, score
from mimetic.streams import generator

Inputs = Literal["pixels", "standardized", "unit"]
_LEVELS = 255.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Images to learn from, to choose on and to test on.

    Attributes:
        train: Training images.
        val: Images choices are made on; None where nothing is chosen.
        test: Images no choice looks at.
        classes: Number of classes.
        features: From stored images to floating point on the device that computes.
    """

    train: Images
    val: Images | None
    test: Images
    classes: int
    features: Features

    @property
    def targets(self) -> Tensor:
        """Return the labels of the training images as rows of zeros with a one, (N, K)."""
        return one_hot(self.train.labels_N, self.classes)

    def held_out(self) -> dict[str, Images]:
        """Return the splits that are not trained on, by name."""
        splits = {"val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


def problem(
    spec: Learner, dataset: Dataset, *, seed: int, device: torch.device, dtype: torch.dtype
) -> Problem:
    """Return what a learner is given, its training images drawn by the seed.

    Raises:
        UserError: If more images are asked for than there are, or none are held out to choose on.
    """
    if spec.held_out is not None and dataset.val is None:
        raise UserError(
            f"{spec.held_out} looks at validation images, and none are held out; set `data.val_size`"
        )
    train, val, test = _images(dataset.train), _images(dataset.val), _images(dataset.test)
    assert train is not None
    assert test is not None
    if spec.images is not None:
        if spec.images > len(train):
            message = f"learner.images: {spec.images} asked for, and the training split has {len(train)}; "
            raise UserError(message + "ask for fewer")
        order_N = torch.randperm(len(train), generator=generator(seed, "learner", "images"))
        chosen_M = order_N[: spec.images]
        train = Images(train.pixels_NCHW[chosen_M], train.labels_N[chosen_M])
    features = reading(spec.inputs, dataset, device=device, dtype=dtype)
    return Problem(train, val, test, dataset.num_classes, features)


def _images(split: Split | None) -> Images | None:
    if isinstance(split, Tokens):
        raise UserError("a `learner` learns from images, and these data are tokens; choose other data")
    return split


def reading(inputs: Inputs, dataset: Dataset, *, device: torch.device, dtype: torch.dtype) -> Features:
    """Return the function from stored images to what is learned from."""
    mean_C11 = torch.tensor(dataset.mean, device=device, dtype=dtype)[:, None, None]
    std_C11 = torch.tensor(dataset.std, device=device, dtype=dtype)[:, None, None]

    def read(pixels_NCHW: Tensor) -> Tensor:
        values_NCHW: Tensor = pixels_NCHW.to(device, dtype) / _LEVELS
        if inputs == "standardized":
            values_NCHW = (values_NCHW - mean_C11) / std_C11
        elif inputs == "unit":
            norm_N111 = values_NCHW.flatten(1).norm(dim=1)[:, None, None, None]
            values_NCHW = values_NCHW / norm_N111.clamp(min=1.0 / _LEVELS)
        return values_NCHW

    return read


def with_features(given: Problem, features: Features) -> Problem:
    """Return the same images read in another way."""
    return replace(given, features=features)


def metrics_of(scores: dict[str, Score]) -> dict[str, float]:
    """Return scores under the names of the metrics of training."""
    found: dict[str, float] = {}
    for split, known in scores.items():
        found |= {f"{split}/loss": known.loss, f"{split}/acc": known.accuracy}
    return found


def scores_of(answers_RNK: Tensor, labels_N: Tensor) -> list[Score]:
    """Return how the predictions of each ridge fit."""
    return [score(answers_NK, labels_N) for answers_NK in answers_RNK]
