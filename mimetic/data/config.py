"""Which data: images, how many of them and how they are augmented, or sequences of tokens."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from mimetic.config.base import Count, Fraction, FromList, NonNegative, validation_error
from mimetic.config.registry import Component, Registered


class Augmentation(Component, family="augment"):
    """Base of the augmentations of training images."""


class Flip(Augmentation, type="flip"):
    """Mirror each image left to right with probability p."""

    p: Fraction = Field(0.5, description="Probability.")


class Crop(Augmentation, type="crop"):
    """Pad each image and cut a window of the original size at a place of its own."""

    padding: Count = Field(4, description="Pixels added on each side.")
    fill: Literal["zero", "reflect"] = Field("zero", description="What the padding holds.")


class Cutout(Augmentation, type="cutout"):
    """Set a square of each image to the mean colour (DeVries and Taylor, arXiv 1708.04552)."""

    size: Count = Field(8, description="Side of the square in pixels.")


class ColorJitter(Augmentation, type="color_jitter"):
    """Scale brightness, contrast and saturation of each image by factors in 1 ± strength."""

    brightness: NonNegative = Field(0.2, description="Strength.")
    contrast: NonNegative = Field(0.2, description="Strength.")
    saturation: NonNegative = Field(0.2, description="Strength; ignored on grey images.")


class RandAugment(Augmentation, type="rand_augment"):
    """Apply a few of fourteen operations, drawn for each image, at one strength (arXiv 1909.13719)."""

    num_ops: Count = Field(2, description="Operations for each image, one after another.")
    magnitude: int = Field(9, ge=0, le=30, description="Strength, from 0 to 30.")


class AnyData(Component, family="data"):
    """Base of the data sets."""

    holds: ClassVar[Literal["images", "tokens"]]
    """What a model reads of it."""

    @property
    def held_out(self) -> int:
        """Return how many examples are kept for validation."""
        return int(getattr(self, "val_size", 0))


class Data(AnyData):
    """Base of the image sets."""

    holds = "images"

    root: str | None = Field(
        None, description="Folder that holds the set; `$MIMETIC_DATA` or ./data unless given."
    )
    download: bool = Field(False, description="Let torchvision download a missing set.")
    train_size: Count | None = Field(
        None, description="Use this many training images, chosen once by `split_seed`."
    )
    val_size: int = Field(0, ge=0, description="Hold this many training images out as a validation split.")
    test_size: Count | None = Field(None, description="Use this many test images.")
    split_seed: int = Field(0, ge=0, description="Seed of the subset and of the held-out split.")
    image_size: Count | None = Field(None, description="Resize images to this side.")
    augment: Annotated[tuple[Annotated[Augmentation, Registered("augment")], ...], FromList] = Field(
        default=(), description="Augmentations of training images, in order, one draw per image."
    )


class Digits(Data, type="digits"):
    """scikit-learn's handwritten digits: 1,797 grey 8×8 images that need no download."""


class Cifar10(Data, type="cifar10"):
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""


class Cifar100(Data, type="cifar100"):
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""


class Svhn(Data, type="svhn"):
    """SVHN, cropped: 73,257 + 26,032 colour images of 32×32 (Netzer et al., 2011)."""


class FashionMnist(Data, type="fashion_mnist"):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 (Xiao et al., arXiv 1708.07747)."""


class TinyImagenet(Data, type="tiny_imagenet"):
    """Tiny ImageNet: 100,000 + 10,000 colour images of 64×64 in 200 classes (Stanford cs231n)."""


class ImageFolder(Data, type="image_folder"):
    """A folder with one sub-folder of images per class; `train` and `test` below it where there are such."""

    path: str = Field(min_length=1, description="The folder; a relative path starts at the data root.")
    test_fraction: Fraction = Field(
        0.2, description="Share held out for testing where there is no test folder."
    )


class Synthetic(Data, type="synthetic"):
    """Procedural coloured gratings, one orientation and frequency per class: for benchmarks and tests."""

    shape: Annotated[tuple[Count, Count], FromList] = Field(
        (3, 32), description="Channels and side of the images."
    )
    classes: Count = Field(10, description="Number of classes.")
    count: Count = Field(2048, description="Training images; a quarter as many for testing.")
    noise: NonNegative = Field(0.3, description="Standard deviation of the pixel noise.")


class RowSignal(Data, type="row_signal"):
    """Noise with one row, anywhere, all up or all down: which of the two is the class (arXiv 2309.00570)."""

    shape: Annotated[tuple[Count, Count], FromList] = Field((16, 32), description="Rows and columns.")
    count: Count = Field(2048, description="Training images; a quarter as many for testing.")
    noise: NonNegative = Field(
        1.0, description="Standard deviation of the noise over the height of the signal, the paper's √σ."
    )


class NoisyDigits(Data, type="noisy_digits"):
    """scikit-learn's digits, each at a random place in a frame of noise (arXiv 2309.00570's noisy MNIST)."""

    frame: Annotated[int, Field(ge=8)] = Field(12, description="Side of the frame; the digit's is 8.")
    noise: NonNegative = Field(
        0.5, description="Standard deviation of the noise over the height of a stroke, the paper's ½√σ."
    )


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    shortest, longest = value
    if shortest > longest:
        raise validation_error(
            f"the shortest string has {shortest} letters, the longest {longest}",
            hint=f"write `[{longest}, {shortest}]`",
        )
    return value


class Copying(AnyData, type="copying"):
    """Strings of random letters to be copied after a separator (arXiv 2402.01032, as in 2410.11135)."""

    holds = "tokens"

    letters: Count = Field(16, description="Size of the alphabet, which begin, separator and end are not of.")
    lengths: Annotated[tuple[Count, Count], FromList, AfterValidator(_rising)] = Field(
        (1, 32), description="Shortest and longest string trained on; lengths are drawn uniformly."
    )
    test_lengths: Annotated[tuple[Count, ...], FromList] = Field(
        (32, 64, 128), description="Lengths tested apart, each a metric such as `test/acc_len64`."
    )
    train_size: Count = Field(12800, description="Strings trained on.")
    val_size: int = Field(0, ge=0, description="Strings held out for validation, of each kind tested.")
    test_size: Count = Field(256, description="Strings tested, of each length and of the lengths trained on.")
    split_seed: int = Field(0, ge=0, description="Seed of the strings.")
