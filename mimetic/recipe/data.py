"""Which data: images, how many of them and how they are augmented, or sequences of tokens."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from mimetic.recipe.base import Count, Fraction, FromList, NonNegative, Spec, mistake
from mimetic.recipe.registry import Registered, register


@register("augment")
class Flip(Spec):
    """Mirror each image left to right with probability p."""

    type: Literal["flip"] = "flip"
    p: Fraction = Field(0.5, description="Probability.")


@register("augment")
class Crop(Spec):
    """Pad each image and cut a window of the original size at a place of its own."""

    type: Literal["crop"] = "crop"
    padding: Count = Field(4, description="Pixels added on each side.")
    fill: Literal["zero", "reflect"] = Field("zero", description="What the padding holds.")


@register("augment")
class Cutout(Spec):
    """Set a square of each image to the mean colour (DeVries and Taylor, arXiv 1708.04552)."""

    type: Literal["cutout"] = "cutout"
    size: Count = Field(8, description="Side of the square in pixels.")


@register("augment")
class ColorJitter(Spec):
    """Scale brightness, contrast and saturation of each image by factors in 1 ± strength."""

    type: Literal["color_jitter"] = "color_jitter"
    brightness: NonNegative = Field(0.2, description="Strength.")
    contrast: NonNegative = Field(0.2, description="Strength.")
    saturation: NonNegative = Field(0.2, description="Strength; ignored on grey images.")


@register("augment")
class RandAugment(Spec):
    """Apply a few of fourteen operations, drawn for each image, at one strength (arXiv 1909.13719)."""

    type: Literal["rand_augment"] = "rand_augment"
    num_ops: Count = Field(2, description="Operations for each image, one after another.")
    magnitude: int = Field(9, ge=0, le=30, description="Strength, from 0 to 30.")


class AnyData(Spec):
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
    augment: Annotated[tuple[Annotated[Spec, Registered("augment")], ...], FromList] = Field(
        default=(), description="Augmentations of training images, in order, one draw per image."
    )


@register("data")
class Digits(Data):
    """scikit-learn's handwritten digits: 1,797 grey 8×8 images that need no download."""

    type: Literal["digits"] = "digits"


@register("data")
class Cifar10(Data):
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""

    type: Literal["cifar10"] = "cifar10"


@register("data")
class Cifar100(Data):
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""

    type: Literal["cifar100"] = "cifar100"


@register("data")
class Svhn(Data):
    """SVHN, cropped: 73,257 + 26,032 colour images of 32×32 (Netzer et al., 2011)."""

    type: Literal["svhn"] = "svhn"


@register("data")
class FashionMnist(Data):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 (Xiao et al., arXiv 1708.07747)."""

    type: Literal["fashion_mnist"] = "fashion_mnist"


@register("data")
class TinyImagenet(Data):
    """Tiny ImageNet: 100,000 + 10,000 colour images of 64×64 in 200 classes (Stanford cs231n)."""

    type: Literal["tiny_imagenet"] = "tiny_imagenet"


@register("data")
class ImageFolder(Data):
    """A folder with one sub-folder of images per class; `train` and `test` below it where there are such."""

    type: Literal["image_folder"] = "image_folder"
    path: str = Field(min_length=1, description="The folder; a relative path starts at the data root.")
    test_fraction: Fraction = Field(
        0.2, description="Share held out for testing where there is no test folder."
    )


@register("data")
class Synthetic(Data):
    """Procedural coloured gratings, one orientation and frequency per class: for benchmarks and tests."""

    type: Literal["synthetic"] = "synthetic"
    shape: Annotated[tuple[Count, Count], FromList] = Field(
        (3, 32), description="Channels and side of the images."
    )
    classes: Count = Field(10, description="Number of classes.")
    count: Count = Field(2048, description="Training images; a quarter as many for testing.")
    noise: NonNegative = Field(0.3, description="Standard deviation of the pixel noise.")


@register("data")
class RowSignal(Data):
    """Noise with one row, anywhere, all up or all down: which of the two is the class (arXiv 2309.00570)."""

    type: Literal["row_signal"] = "row_signal"
    shape: Annotated[tuple[Count, Count], FromList] = Field((16, 32), description="Rows and columns.")
    count: Count = Field(2048, description="Training images; a quarter as many for testing.")
    noise: NonNegative = Field(
        1.0, description="Standard deviation of the noise over the height of the signal, the paper's √σ."
    )


@register("data")
class NoisyDigits(Data):
    """scikit-learn's digits, each at a random place in a frame of noise (arXiv 2309.00570's noisy MNIST)."""

    type: Literal["noisy_digits"] = "noisy_digits"
    frame: Annotated[int, Field(ge=8)] = Field(12, description="Side of the frame; the digit's is 8.")
    noise: NonNegative = Field(
        0.5, description="Standard deviation of the noise over the height of a stroke, the paper's ½√σ."
    )


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    shortest, longest = value
    if shortest > longest:
        raise mistake(
            f"the shortest string has {shortest} letters, the longest {longest}",
            hint=f"write `[{longest}, {shortest}]`",
        )
    return value


@register("data")
class Copying(AnyData):
    """Strings of random letters to be copied after a separator (arXiv 2402.01032, as in 2410.11135)."""

    holds = "tokens"

    type: Literal["copying"] = "copying"
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
