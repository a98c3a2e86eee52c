"""The initializers of `torch.nn.init` under their own names, each with the moments it promises.

A `Law` pairs torch's own implementation with the mean and the rms deviation of its entries in closed
form. Fans are torch's: from the stored shape, second side and first side, each times the kernel's pixels.
Other laws join by `law.register(TheirSpec)`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

from torch import Generator, Tensor
from torch.nn import init

from mimetic.config.registry import Component
from mimetic.covariance.linalg import one_thread
from mimetic.errors import UserError
from mimetic.initializers import config as spec_of
from mimetic.initializers.draw import Moments
from mimetic.initializers.normal import normal_, trunc_normal_
from mimetic.initializers.trunc_normal import trunc_normal_moments
from mimetic.streams import keyed_global_rng

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Law:
    """How a tensor is filled in place from a generator, and the moments of its entries.

    Attributes:
        fill: Fills a tensor, of float64, in place.
        moments: What the entries are expected to be.
        piecewise: Whether entries are independent of each other and of the tensor's shape, so that `fill` may
            be given a tensor piece by piece.
    """

    fill: Callable[[Tensor, Generator], object]
    moments: Moments
    piecewise: bool = False


@singledispatch
def law(spec: Component, shape: Shape) -> Law:  # noqa: ARG001
    """Return the law of a named initializer for a tensor of a shape.

    Raises:
        UserError: If it cannot fill such a tensor, or its arguments contradict each other.
    """
    name = getattr(type(spec), "type_name", lambda: type(spec).__name__)()
    message = f"the initializer `{name}` is registered but nothing draws it; register a function with "
    raise UserError(message + "`mimetic.initializers.law.register`")


@law.register
def _(spec: spec_of.Uniform, shape: Shape) -> Law:
    if spec.a > spec.b:
        message = f"uniform needs a ≤ b, but a is {spec.a} and b is {spec.b}"
        raise UserError(message)
    return Law(
        lambda tensor, stream: init.uniform_(tensor, spec.a, spec.b, generator=stream),
        _scattered(shape, (spec.b - spec.a) / math.sqrt(12.0), mean=0.5 * (spec.a + spec.b)),
        piecewise=True,
    )


@law.register
def _(spec: spec_of.Normal, shape: Shape) -> Law:
    return Law(
        lambda tensor, stream: normal_(tensor, spec.mean, spec.std, generator=stream),
        _scattered(shape, spec.std, mean=spec.mean),
        piecewise=True,
    )


@law.register
def _(spec: spec_of.ScaledResidual, shape: Shape) -> Law:
    return _normal(shape, spec.std / math.sqrt(spec.branches * spec.layers))


@law.register
def _(spec: spec_of.TruncNormal, shape: Shape) -> Law:
    mean, std = trunc_normal_moments(spec.mean, spec.std, lower=spec.a, upper=spec.b)
    return Law(
        lambda tensor, stream: trunc_normal_(
            tensor, spec.mean, spec.std, lower=spec.a, upper=spec.b, generator=stream
        ),
        _scattered(shape, std, mean=mean),
        piecewise=True,
    )


@law.register
def _(spec: spec_of.Constant, shape: Shape) -> Law:  # noqa: ARG001
    return Law(
        lambda tensor, _: init.constant_(tensor, spec.value), Moments(spec.value, 0.0, 0.0), piecewise=True
    )


@law.register
def _(spec: spec_of.Ones, shape: Shape) -> Law:  # noqa: ARG001
    return Law(lambda tensor, _: init.ones_(tensor), Moments(1.0, 0.0, 0.0), piecewise=True)


@law.register
def _(spec: spec_of.Zeros, shape: Shape) -> Law:  # noqa: ARG001
    return Law(lambda tensor, _: init.zeros_(tensor), Moments(0.0, 0.0, 0.0), piecewise=True)


@law.register
def _(spec: spec_of.Eye, shape: Shape) -> Law:
    _sides(spec, shape, (2,))
    return Law(lambda tensor, _: init.eye_(tensor), _ones_among(math.prod(shape), min(shape)))


@law.register
def _(spec: spec_of.Dirac, shape: Shape) -> Law:
    _sides(spec, shape, (3, 4, 5))
    if shape[0] % spec.groups:
        message = f"dirac with groups {spec.groups} needs output channels divisible by it, not {shape[0]}"
        raise UserError(message)
    ones = spec.groups * min(shape[0] // spec.groups, shape[1])
    return Law(
        lambda tensor, _: init.dirac_(tensor, spec.groups),
        _ones_among(math.prod(shape), ones),
    )


@law.register
def _(spec: spec_of.XavierUniform, shape: Shape) -> Law:
    std = spec.gain * math.sqrt(2.0 / sum(stored_fans(spec, shape)))
    return _uniform(shape, std)


@law.register
def _(spec: spec_of.XavierNormal, shape: Shape) -> Law:
    std = spec.gain * math.sqrt(2.0 / sum(stored_fans(spec, shape)))
    return _normal(shape, std)


@law.register
def _(spec: spec_of.KaimingUniform, shape: Shape) -> Law:
    return _uniform(shape, _kaiming_std(spec, shape))


@law.register
def _(spec: spec_of.KaimingNormal, shape: Shape) -> Law:
    return _normal(shape, _kaiming_std(spec, shape))


@law.register
def _(spec: spec_of.Orthogonal, shape: Shape) -> Law:
    _sides(spec, shape, range(2, 9))
    long = max(shape[0], math.prod(shape[1:]))
    short = math.prod(shape) // max(long, 1)
    # The degrees of freedom of `short` orthonormal vectors in `long` dimensions.
    draws = max(1.0, long * short - short * (short + 1) / 2)

    def fill(tensor: Tensor, stream: Generator) -> None:
        with one_thread():  # a QR's bits depend on the number of threads
            init.orthogonal_(tensor, spec.gain, generator=stream)

    return Law(fill, Moments(0.0, spec.gain / math.sqrt(max(long, 1)), draws))


@law.register
def _(spec: spec_of.Sparse, shape: Shape) -> Law:
    _sides(spec, shape, (2,))
    rows = shape[0]
    share = 1.0 - math.ceil(spec.sparsity * rows) / max(rows, 1)

    def fill(tensor: Tensor, stream: Generator) -> None:
        # torch places the zeros by the global stream, whatever generator it is given.
        with keyed_global_rng(stream.initial_seed(), "zeros"):
            init.sparse_(tensor, spec.sparsity, spec.std, generator=stream)

    return Law(fill, Moments(0.0, spec.std * math.sqrt(share), share * math.prod(shape)))


def stored_fans(spec: Component, shape: Shape) -> tuple[int, int]:
    """Return torch's (fan_in, fan_out) of a stored shape.

    Raises:
        UserError: If the tensor has fewer than two sides.
    """
    _sides(spec, shape, range(2, 9))
    pixels = math.prod(shape[2:])
    return shape[1] * pixels, shape[0] * pixels


def _kaiming_std(spec: spec_of.KaimingUniform | spec_of.KaimingNormal, shape: Shape) -> float:
    fan_in, fan_out = stored_fans(spec, shape)
    gain = init.calculate_gain(spec.nonlinearity, spec.a)
    return gain / math.sqrt(max(1, fan_in if spec.mode == "fan_in" else fan_out))


def _uniform(shape: Shape, std: float) -> Law:
    """Return the law U(±√3·std), as torch draws Xavier's and Kaiming's; the fans are in std already."""
    bound = math.sqrt(3.0) * std
    return Law(
        lambda tensor, stream: init.uniform_(tensor, -bound, bound, generator=stream),
        _scattered(shape, std),
        piecewise=True,
    )


def _normal(shape: Shape, std: float) -> Law:
    """Return the law N(0, std²)."""
    return Law(
        lambda tensor, stream: normal_(tensor, 0.0, std, generator=stream),
        _scattered(shape, std),
        piecewise=True,
    )


def _scattered(shape: Shape, std: float, *, mean: float = 0.0) -> Moments:
    """Return the moments of independent entries; certain where they do not scatter."""
    return Moments(mean, std, float(math.prod(shape)) if std > 0.0 else 0.0)


def _ones_among(count: int, ones: int) -> Moments:
    """Return the moments of a certain number of ones among zeros."""
    mean = ones / max(count, 1)
    return Moments(mean, math.sqrt(mean * (1.0 - mean)), 0.0)


def _sides(spec: Component, shape: Shape, allowed: tuple[int, ...] | range) -> None:
    """Refuse tensors with another number of sides than the initializer is defined for."""
    if len(shape) in allowed:
        return
    needs = "2 or more" if isinstance(allowed, range) else " or ".join(str(side) for side in allowed)
    message = f"{spec.type_name()} needs a tensor with {needs} dimensions, and this one has shape {shape}; "
    raise UserError(message + "narrow `match` (`param: weight`, a `kind`), or choose normal or constant")
