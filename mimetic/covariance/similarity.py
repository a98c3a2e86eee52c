"""How alike two networks' layers are: by their features, and by the covariances of their filters.

Features at a layer's input are compared by Procrustes (arXiv 2305.18512): the cosine of the first network's
and the second's, best rotated, ‖E[φψᵀ]‖_* / √(E‖φ‖²·E‖ψ‖²). Filters are compared by the Bures cosine of
their uncentered covariances, ‖A^½·B^½‖_* / √(tr A · tr B), in the first network's channels (Guth and Ménard,
arXiv 2409.19460); `chance` is what a random rotation of the first network's own channels gives. The
kernels alone, over all channels, need no rotation and no images.

Shapes: O filters, I inputs, K kernel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimetic.ambient import fixed_settings
from mimetic.config.suggest import listed
from mimetic.covariance.activations import alignment, steps
from mimetic.covariance.algebra import bures_wasserstein
from mimetic.covariance.harvest import described
from mimetic.covariance.layout import filters_of
from mimetic.covariance.measure import KINDS
from mimetic.covariance.procrustes import polar, rotated, width_scale
from mimetic.covariance.weights import filter_covariance, nfm
from mimetic.errors import UserError
from mimetic.graph.geometry import kind_and_geometry
from mimetic.graph.names import canonical_modules
from mimetic.graph.site import Geometry
from mimetic.streams import generator


@dataclass(frozen=True, slots=True)
class Similarity:
    """One layer of two networks, compared.

    Attributes:
        layer: Its name in both.
        one: Kind and shape in the first.
        other: And in the second.
        features: Cosine of their features at the layer's input, best rotated; 1 for a rotated copy, whatever
            the scale. None at the images, without images, and where channels cannot be rotated.
        filters: Bures cosine of the filters' covariances over channels and kernel, rotated; 1 for equal
            shapes of covariance, whatever their scale.
        chance: The same of the first network with itself, its channels rotated at random.
        kernels: Bures cosine of the covariances over the kernel alone; None for a single pixel.
    """

    layer: str
    one: str
    other: str
    features: float | None
    filters: float | None
    chance: float | None
    kernels: float | None


@fixed_settings()
def similarities(
    one: nn.Module,
    other: nn.Module,
    images_NCHW: Tensor | None,
    *,
    names: tuple[str, str] = ("the first network", "the second"),
    seed: int = 0,
) -> tuple[Similarity, ...]:
    """Compare two networks layer by layer, in the order of execution where images are given.

    Args:
        one: The network in whose channels the other is seen; on the CPU, as is the other.
        other: A network with layers of the same names; widths may differ.
        images_NCHW: Images as both see them: floating point, normalized. Without them only what needs no
            rotation is compared: the first layer, and kernels.
        names: What messages call them.
        seed: Seed of the random rotations.

    Raises:
        UserError: If they share no layer, or images do not fit.
    """
    left, right = _layers(one, names[0]), _layers(other, names[1])
    shared = [name for name in left if name in right and _comparable(left[name][1], right[name][1])]
    if not shared:
        ours, theirs = (listed(layers) or "no layers with filters" for layers in (left, right))
        raise UserError(
            f"{names[0]} ({ours}) and {names[1]} ({theirs}) share no layer of one name "
            "and kernel; compare networks of one architecture",
            code="MIM-V221",
        )
    # Behind a layer the second network is rotated to the first; the first layer sees the images of both.
    order = _order(one, left, images_NCHW, names[0])
    found: list[Similarity] = []
    for name in (name for name in order if name in shared):
        before = order[order.index(name) - 1] if order.index(name) > 0 else None
        rotation_RN, features = None, None
        if before is not None and images_NCHW is not None and left[name][1].groups == 1:
            positions = _positions(left, right, name, before)
            if positions is not None:
                pair = f"{names[0]} and {names[1]}"
                met = alignment(one, other, name, images_NCHW, positions=positions, origin=pair)
                rotation_RN, features = met.rotation_RN / width_scale(met.rotation_RN), met.cosine
        first = before is None
        likeness = _likeness(name, left[name][2], right[name][2], rotation_RN, first=first, seed=seed)
        shapes = [described(kind, geometry) for kind, geometry, _ in (left[name], right[name])]
        found.append(Similarity(name, shapes[0], shapes[1], features, *likeness))
    return tuple(found)


_Layer = tuple[str, Geometry, Tensor]


def _layers(model: nn.Module, origin: str) -> dict[str, _Layer]:
    """Return kind, geometry and filters (O, I, *K) of the layers that have filters.

    Raises:
        UserError: If filters are not finite.
    """
    found: dict[str, _Layer] = {}
    for name, module in canonical_modules(model).items():
        kind, geometry = kind_and_geometry(module)
        weight = getattr(module, "weight", None)
        if kind in KINDS and geometry is not None and isinstance(weight, Tensor):
            filters_OIK = filters_of(weight.detach(), geometry, name=f"{origin}: `{name}`").to(
                "cpu", torch.float64
            )
            if not bool(torch.isfinite(filters_OIK).all()):
                raise UserError(
                    f"{origin}: the weight of `{name}` ({described(kind, geometry)}) has NaN or "
                    "infinite values: its training diverged, or its file is damaged",
                    code="MIM-V222",
                )
            found[name] = (kind, geometry, filters_OIK)
    return found


def _comparable(one: Geometry, other: Geometry) -> bool:
    return one.kernel_size == other.kernel_size and (one.groups == 1) == (other.groups == 1)


def _order(model: nn.Module, layers: dict[str, _Layer], images_NCHW: Tensor | None, name: str) -> list[str]:
    if images_NCHW is None:
        return list(layers)
    return list(dict.fromkeys(step.layer for step in steps(model, layers, images_NCHW[:2], origin=name)))


def _positions(left: dict[str, _Layer], right: dict[str, _Layer], name: str, before: str) -> int | None:
    """Return the pixels per channel behind a flattened map; None where they differ."""
    counts = set()
    for layers in (left, right):
        geometry = layers[name][1]
        channels = layers[before][1].out_channels if before in layers else geometry.in_channels
        flat = not geometry.kernel_size and geometry.in_channels % channels == 0
        counts.add(geometry.in_channels // channels if flat else 1)
    return counts.pop() if len(counts) == 1 else None


def _likeness(
    name: str, ours_OIK: Tensor, theirs_OIK: Tensor, rotation_RN: Tensor | None, *, first: bool, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Return the Bures cosines of filters, of the first network with itself by chance, and of kernels."""
    kernels = filters = chance = None
    if ours_OIK[0, 0].numel() > 1:
        one, other = (filter_covariance(w, centered=False) for w in (ours_OIK, theirs_OIK))
        _, kernels = bures_wasserstein(one, other)
    if rotation_RN is not None or (first and ours_OIK.shape[1:] == theirs_OIK.shape[1:]):
        channels = ours_OIK.shape[1]
        if rotation_RN is not None:
            channels, theirs = rotation_RN.shape
            theirs_OIK = rotated(theirs_OIK, rotation_RN.T, theirs_OIK.shape[1] // theirs)
        stream = generator(seed, "chance", name)
        turn_RR, _ = polar(torch.randn(channels, channels, dtype=torch.float64, generator=stream))
        turned_OIK = rotated(ours_OIK, turn_RR, ours_OIK.shape[1] // channels)
        one, other, third = (nfm(w, normalize="mean") for w in (ours_OIK, theirs_OIK, turned_OIK))
        filters, chance = bures_wasserstein(one, other)[1], bures_wasserstein(one, third)[1]
    return filters, chance, kernels
