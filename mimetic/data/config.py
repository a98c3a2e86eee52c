"""Sections of `data`: data sets, their subsets and their augmentations. No torch.

A data set is a section here and one function (`impl`, protocol `mimetic.data.load.DataLoader`); an
augmentation likewise (protocol `mimetic.data.augment.MakeAugmentation`).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from mimetic.config.base import Count, Fraction, FromList, NonNegative, validation_error
from mimetic.config.registry import Component, Registered
from mimetic.data.shapes import DataShape, ImageShape, TokenShape


class Augmentation(Component, family="augment"):
    """Base of the augmentations of training images."""


class Flip(Augmentation, type="flip", impl="mimetic.data.augment:make_flip"):
    """Mirror each image left to right with probability p."""

    p: Fraction = Field(0.5, description="Probability.")


class Crop(Augmentation, type="crop", impl="mimetic.data.augment:make_crop"):
    """Pad each image and cut out a window of the original size at a random place."""

    padding: Annotated[int, Field(ge=1, le=1024)] = Field(4, description="Pixels added on each side.")
    fill: Literal["zero", "reflect"] = Field("zero", description="Padding values.")


class Cutout(Augmentation, type="cutout", impl="mimetic.data.augment:make_cutout"):
    """Set a square of each image to the mean colour (DeVries and Taylor, arXiv 1708.04552)."""

    size: Count = Field(8, description="Side of the square in pixels.")


class ColorJitter(Augmentation, type="color_jitter", impl="mimetic.data.augment:make_color_jitter"):
    """Scale brightness, contrast and saturation of each image by factors in 1 ± strength."""

    brightness: NonNegative = Field(0.2, description="Strength.")
    contrast: NonNegative = Field(0.2, description="Strength.")
    saturation: NonNegative = Field(0.2, description="Strength; ignored on grey images.")


class RandAugment(Augmentation, type="rand_augment", impl="mimetic.data.rand_augment:make_rand_augment"):
    """Apply a few of fourteen operations, drawn per image, at one strength (arXiv 1909.13719)."""

    num_ops: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="Operations per image, applied one after another."
    )
    magnitude: int = Field(9, ge=0, le=30, description="Strength, from 0 to 30.")


class DataSection(Component, family="data"):
    """Base of the data sets.

    `impl` names a function that loads the set (protocol `mimetic.data.load.DataLoader`). A set whose shape is
    read from its files also names `shape_impl`, a function from the section to the shape.
    """

    provides: ClassVar[Literal["images", "tokens"]]
    """Kind of examples; a model's `reads` must agree."""

    files: ClassVar[tuple[str, ...] | None] = None
    """Patterns of the files below the data root that a set is read from; none if it is computed or comes with
    an installed package; None if they are not known before it is loaded."""

    fixed_shape: ClassVar[DataShape | None] = None
    """Shape of the stored examples, for sets whose shape depends on no key."""

    def native_shape(self) -> DataShape | None:
        """Return the shape of the stored examples without loading them; None if it is unknown before loading.

        A section sets `fixed_shape` or overrides this: planning needs the shape, and would otherwise load
        the whole set.
        """
        return self.fixed_shape

    def num_bytes(self) -> float:
        """Return about how much memory the set takes; 0 if it is unknown before loading."""
        return 0.0

    @property
    def num_validation(self) -> int:
        """Return the number of validation examples."""
        return int(getattr(self, "val_size", 0))


class ImageData(DataSection):
    """Base of the image sets: subsets, validation split, size and augmentation.

    `impl` returns a `mimetic.data.dataset.ImageSet`; subsets, splitting and resizing are applied to it.
    """

    provides = "images"

    num_stored: ClassVar[int] = 0
    """Number of stored examples; 0 if it depends on files."""

    root: str | None = Field(
        None, description="Folder that contains the set; default: `$MIMETIC_DATA` or ./data."
    )
    download: bool = Field(False, description="Download a missing set.")
    train_size: Count | None = Field(
        None, description="Use this many training images, chosen by `split_seed`."
    )
    val_size: int = Field(0, ge=0, description="Split off this many training images for validation.")
    test_size: Count | None = Field(None, description="Use this many test images.")
    split_seed: int = Field(0, ge=0, description="Seed of the subset and of the validation split.")
    image_size: Count | None = Field(None, description="Resize images to this side.")
    channels: Literal[3] | None = Field(
        None, description="Repeat grey images over 3 channels, for networks that take colour images."
    )
    augment: Annotated[tuple[Annotated[Augmentation, Registered("augment")], ...], FromList] = Field(
        default=(), description="Augmentations of training images, in order, drawn per image."
    )

    def num_bytes(self) -> float:
        """Return the memory of the images as bytes, at their size after resizing."""
        shape = self.native_shape()
        known = shape if isinstance(shape, ImageShape) else ImageShape(3, 0, 0, 0)
        pixels = known.height * known.width if self.image_size is None else self.image_size**2
        chosen = None if self.train_size is None else self.train_size + self.val_size
        stored = self.num_stored if chosen is None else min(chosen, self.num_stored or chosen)
        return max(stored, 1) * (self.channels or known.channels) * pixels + self._drawn_bytes()

    def _drawn_bytes(self) -> float:
        """Return the memory of a set that is drawn, in floating point, before anything is chosen of it."""
        return 0.0


class Digits(ImageData, type="digits", impl="mimetic.data.digits:digits"):
    """scikit-learn's handwritten digits: 1,797 grey 8×8 images that need no download."""

    files = ()
    fixed_shape = ImageShape(1, 8, 8, 10)
    num_stored = 1797


class Cifar10(ImageData, type="cifar10", impl="mimetic.data.published:published"):
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""

    files = ("cifar-10-batches-py/*",)
    fixed_shape = ImageShape(3, 32, 32, 10)
    num_stored = 60_000


class Cifar100(ImageData, type="cifar100", impl="mimetic.data.published:published"):
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 (Krizhevsky, 2009)."""

    files = ("cifar-100-python/*",)
    fixed_shape = ImageShape(3, 32, 32, 100)
    num_stored = 60_000


class Svhn(ImageData, type="svhn", impl="mimetic.data.published:published"):
    """SVHN, cropped: 73,257 + 26,032 colour images of 32×32 (Netzer et al., 2011)."""

    files = ("train_32x32.mat", "test_32x32.mat")
    fixed_shape = ImageShape(3, 32, 32, 10)
    num_stored = 99_289


class FashionMnist(ImageData, type="fashion_mnist", impl="mimetic.data.published:published"):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 (Xiao et al., arXiv 1708.07747)."""

    files = ("FashionMNIST/raw/*",)
    fixed_shape = ImageShape(1, 28, 28, 10)
    num_stored = 70_000


class TinyImagenet(ImageData, type="tiny_imagenet", impl="mimetic.data.image_folder:tiny_imagenet"):
    """Tiny ImageNet: 100,000 + 10,000 colour images of 64×64 in 200 classes (Stanford cs231n)."""

    fixed_shape = ImageShape(3, 64, 64, 200)
    num_stored = 110_000


class ImageFolder(
    ImageData,
    type="image_folder",
    impl="mimetic.data.image_folder:image_folder",
    shape_impl="mimetic.data.image_folder:folder_shape",
):
    """A folder with one sub-folder of images per class, optionally below `train` and `test`."""

    example: ClassVar[Mapping[str, object]] = {"path": "images"}

    path: str = Field(min_length=1, description="The folder, relative to the data root.")
    test_fraction: Fraction = Field(
        0.2, description="Fraction split off for testing if there is no test folder."
    )


class Synthetic(ImageData, type="synthetic", impl="mimetic.data.synthetic:synthetic"):
    """Procedural colour gratings, one orientation and frequency per class, for benchmarks and tests."""

    files = ()
    example: ClassVar[Mapping[str, object]] = {"count": 40}

    shape: Annotated[tuple[Count, Count], FromList] = Field(
        (3, 32), description="Channels and side of the images."
    )
    classes: Count = Field(10, description="Number of classes.")
    count: Count = Field(2048, description="Training images; a quarter as many test images.")
    noise: NonNegative = Field(0.3, description="Standard deviation of the pixel noise.")

    def native_shape(self) -> ImageShape:
        """Return the configured shape."""
        return ImageShape(self.shape[0], self.shape[1], self.shape[1], self.classes)

    def _drawn_bytes(self) -> float:
        return 10 * self.count * self.shape[0] * self.shape[1] ** 2


class RowSignal(ImageData, type="row_signal", impl="mimetic.data.synthetic:row_signal"):
    """Noise in which one random row is all +1 or all -1: the sign is the class (arXiv 2309.00570)."""

    files = ()
    example: ClassVar[Mapping[str, object]] = {"count": 40}

    shape: Annotated[tuple[Count, Count], FromList] = Field((16, 32), description="Rows and columns.")
    count: Count = Field(2048, description="Training images; a quarter as many test images.")
    noise: NonNegative = Field(
        1.0, description="Standard deviation of the noise relative to the signal, the paper's √σ."
    )

    def native_shape(self) -> ImageShape:
        """Return the configured shape."""
        return ImageShape(1, self.shape[0], self.shape[1], 2)

    def _drawn_bytes(self) -> float:
        return 10 * self.count * self.shape[0] * self.shape[1]


class NoisyDigits(ImageData, type="noisy_digits", impl="mimetic.data.digits:noisy_digits"):
    """scikit-learn's digits at random places in frames of noise (noisy MNIST of arXiv 2309.00570)."""

    files = ()
    frame: Annotated[int, Field(ge=8)] = Field(12, description="Side of the frame; digits have 8 pixels.")
    noise: NonNegative = Field(
        0.5, description="Standard deviation of the noise relative to a stroke, the paper's ½√σ."
    )

    def native_shape(self) -> ImageShape:
        """Return the shape of the frames."""
        return ImageShape(1, self.frame, self.frame, 10)

    def _drawn_bytes(self) -> float:
        return 8 * 1797 * self.frame**2


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    shortest, longest = value
    if shortest > longest:
        raise validation_error(
            f"the shortest string has {shortest} letters, the longest {longest}",
            code="MIM-D070",
            hint=f"write `[{longest}, {shortest}]`",
        )
    return value


class Copying(DataSection, type="copying", impl="mimetic.data.copying:copying"):
    """Random strings that must be copied after a separator (arXiv 2402.01032, as in 2410.11135)."""

    provides = "tokens"
    files = ()
    example: ClassVar[Mapping[str, object]] = {"train_size": 40, "test_size": 8}

    letters: Count = Field(
        16, description="Size of the alphabet, without the start, separator and end tokens."
    )
    lengths: Annotated[tuple[Count, Count], FromList, AfterValidator(_rising)] = Field(
        (1, 32), description="Shortest and longest training string; lengths are uniform."
    )
    test_lengths: Annotated[tuple[Count, ...], FromList] = Field(
        (32, 64, 128), description="Lengths with a test metric each, such as `test/acc_len64`."
    )
    train_size: Count = Field(12800, description="Training strings.")
    val_size: int = Field(0, ge=0, description="Validation strings for each test metric.")
    test_size: Count = Field(256, description="Test strings for each test metric.")
    split_seed: int = Field(0, ge=0, description="Seed of the strings.")

    @property
    def vocabulary(self) -> int:
        """Return the number of tokens: letters, start, separator, end."""
        return self.letters + 3

    def native_shape(self) -> TokenShape:
        """Return the vocabulary and the length of the longest training sequence."""
        return TokenShape(self.vocabulary, 2 * self.lengths[1] + 2, self.vocabulary)

    def num_bytes(self) -> float:
        """Return the memory of the strings: two per example, eight bytes per token."""
        tokens = self.train_size * self.lengths[1]
        tokens += (self.val_size + self.test_size) * sum(self.test_lengths)
        return 32 * tokens
