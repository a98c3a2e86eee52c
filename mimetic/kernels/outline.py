"""What a learner will do, in lines for people: the counterpart of a plan's table."""

from functools import singledispatch

from mimetic.data.shapes import ImageShape
from mimetic.errors import UserError
from mimetic.kernels.config import Cntk, Convolutional, ConvRfm, DeepConvRfm, Learner, Rfm
from mimetic.kernels.patches import Architecture


@singledispatch
def outline(spec: Learner, shape: ImageShape) -> tuple[str, ...]:  # noqa: ARG001
    """Return what a learner will do with images of a shape, before anything is loaded.

    Raises:
        UserError: If the images are too small for it.
    """
    return (_split(spec), _ridge(spec))


@outline.register
def _rfm(spec: Rfm, shape: ImageShape) -> tuple[str, ...]:
    size = shape.channels * shape.height * shape.width
    metric = "the diagonal of its AGOP" if spec.diagonal else "its AGOP"
    return (
        f"Laplace kernel of length {spec.bandwidth:g} over {size} {spec.inputs} coordinates",
        f"{spec.rounds} rounds, its metric then {metric}{_power(spec.power)}",
        _split(spec),
        _ridge(spec),
    )


@outline.register
def _cntk(spec: Cntk, shape: ImageShape) -> tuple[str, ...]:
    return (_kernel(spec, shape, spec.depth), _split(spec), _ridge(spec))


@outline.register
def _convrfm(spec: ConvRfm, shape: ImageShape) -> tuple[str, ...]:
    return (_kernel(spec, shape, spec.depth), _features(spec), _split(spec), _ridge(spec))


@outline.register
def _deep_convrfm(spec: DeepConvRfm, shape: ImageShape) -> tuple[str, ...]:
    shrink = 0 if spec.padding else spec.patch_size - 1
    kernels = []
    for level in range(spec.depth):
        channels = shape.channels if level == 0 else spec.width
        less = shrink * level
        seen = ImageShape(channels, shape.height - less, shape.width - less, shape.num_classes)
        kernels.append(f"level {level}: {_kernel(spec, seen, spec.depth - level)}")
    between = f"between levels a random convolution of {spec.width} filters with the learned covariance"
    return (*kernels, _features(spec), between, _split(spec), _ridge(spec))


def _kernel(spec: Convolutional, shape: ImageShape, depth: int) -> str:
    grids = Architecture(spec.patch_size, depth, spec.padding).grids(shape.height, shape.width)
    if not grids:
        message = f"images of {shape.height}×{shape.width} are too small for {depth} convolutions of side "
        raise UserError(message + f"{spec.patch_size}; lower `depth` or `patch_size`, or set `padding: true`")
    positions = " → ".join(f"{rows}×{columns}" for rows, columns in grids)
    plural = "" if depth == 1 else "s"
    patch = f"{shape.channels}×{spec.patch_size}×{spec.patch_size}"
    return f"CNTK of {depth} convolution{plural} over patches of {patch}, positions {positions}"


def _features(spec: ConvRfm) -> str:
    cut = f", its lowest {spec.threshold:.0%} of eigenvalues zero" if spec.threshold > 0.0 else ""
    return (
        f"{spec.rounds} rounds, patches then multiplied by the AGOP at {spec.agop_images} images"
        f"{_power(spec.power)}{cut}"
    )


def _power(power: float) -> str:
    return ", its square root" if power != 1.0 else ""


def _split(spec: Learner) -> str:
    count = (
        "all training images" if spec.images is None else f"{spec.images} training images drawn by the seed"
    )
    return f"learns from {count}, read as {spec.inputs}"


def _ridge(spec: Learner) -> str:
    if len(spec.ridge) == 1:
        return f"ridge {spec.ridge[0]:g}"
    return f"ridge chosen on validation images among {', '.join(f'{ridge:g}' for ridge in spec.ridge)}"
