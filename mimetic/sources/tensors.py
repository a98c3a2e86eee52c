"""A trained network of which only the weights in a file are known: layers by name and shape, no code.

Shapes decide the kinds, as far as they can: o×1×k×k is a depthwise convolution (or the first layer of a
network for grey images), o×i×1×1 a pointwise one, o×i×k×k a convolution, o×i a linear layer, which is stored
input first where its bias has as many entries as columns, or an embedding where it has such a name. ONNX
graphs have kinds, groups and strides.
"""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from mimetic.config.patterns import fullmatch
from mimetic.config.registry import Component
from mimetic.config.suggest import listed
from mimetic.covariance.config import CovarianceSource, WeightStatistic
from mimetic.covariance.harvest import Harvest
from mimetic.covariance.measure import measure
from mimetic.covariance.network import Initial, TrainedNetwork
from mimetic.covariance.trained_ref import TensorKind
from mimetic.errors import UserError
from mimetic.graph.config import SiteKind
from mimetic.graph.geometry import conv_kind
from mimetic.graph.site import Geometry, Graph, Parameter, Site, depths, shape_text
from mimetic.initializers.config import Rows
from mimetic.limits import LAYERS
from mimetic.models.stored_weight import WEIGHT, StoredWeight
from mimetic.models.weight_file import read_weights
from mimetic.sources.trained import TrainedSource

_MATRIX = 2
_EMBEDDING = re.compile(r"(.*[._])?(\w*embed(ding|dings|_tokens)?|wte|wpe)")
"""Names of layers whose matrix is a table of rows."""


@dataclass(frozen=True, eq=False)
class StoredNetwork(TrainedNetwork):
    """A network of which weights are known, and nothing else.

    Attributes:
        weights: The weight of each layer, by layer.
    """

    weights: tuple[StoredWeight, ...] = ()

    def stored_weight(self, site: Site) -> Tensor:
        """Return the weight of a layer as the file stores it, or as it is computed from what is stored."""
        return next(weight.values for weight in self.weights if weight.layer == site.layer)

    @cached_property
    def digest(self) -> str:
        """Return a digest of the weights, exact to the bit."""
        state = blake2b(digest_size=16)
        for weight in self.weights:
            state.update(f"|{weight.name}|{tuple(weight.values.shape)}|".encode())
            state.update(weight.values.double().contiguous().numpy().tobytes())
        return state.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorSource(TrainedSource):
    """The weights in a file.

    Attributes:
        file: The file.
        layers: Regular expressions for names of layers; those of the first come first. All unless given.
        kind: Kind of these layers; by their shapes unless given.
    """

    file: Path
    layers: Sequence[str] | None = None
    kind: TensorKind | None = None

    def network(self, images_NCHW: Tensor | None = None, *, initial: Initial | None = None) -> StoredNetwork:
        """Return the weights as a network that statistics of weights can be measured on.

        Raises:
            UserError: If the file cannot be read, or has no such layers.
        """
        weights = self._chosen()
        sites = _sites(weights, self.kind, self.name)
        graph = Graph(tuple(sites), traced=False, note=f"{self.name} contains weights, and no network")
        return StoredNetwork(self.name, graph, None, images_NCHW, initial, weights=weights)

    def graph(self) -> Graph:
        """Return the sites of the layers, in their order."""
        return self.network().graph

    def available(self, spec: Component, *, kinds: Collection[str] | None = None) -> Harvest | TrainedNetwork:
        """Return what a section takes: the file is there, so the values as well.

        Raises:
            UserError: If it needs the network itself.
        """
        if isinstance(spec, CovarianceSource):
            return self.measure(spec, kinds=kinds)
        self._check(spec)
        return self.network()

    def measure(
        self,
        spec: CovarianceSource,
        images: Callable[[int], Tensor] | None = None,  # noqa: ARG002
        *,
        images_digest: str = "",  # noqa: ARG002
        kinds: Collection[str] | None = None,
    ) -> Harvest:
        """Return the covariances of the layers; notes of how weights were computed are part of them.

        Raises:
            UserError: If the statistic needs the network itself, or cannot be measured.
        """
        self._check(spec)
        network = self.network()
        harvest = measure(spec, network, kinds=kinds)
        notes = {weight.layer: weight.notes for weight in network.weights}
        layers = []
        for harvested in harvest.layers:
            cov = harvested.covariance
            for note in notes[harvested.layer]:
                cov = None if cov is None else cov.noted(note)
            layers.append(replace(harvested, covariance=cov))
        return replace(harvest, layers=tuple(layers))

    def _check(self, spec: Component) -> None:
        if not isinstance(spec, WeightStatistic | Rows):
            raise UserError(
                f"{self.name}: `{spec.type_name()}` needs a network, and this is a file of weights; use "
                "`filters` or `nfm`, or give the network: `from: {checkpoint: …, model: …}`",
                code="MIM-S021",
            )

    def _chosen(self) -> tuple[StoredWeight, ...]:
        """Return the weights of the layers that are wanted, in their order."""
        names: list[str] = []
        patterns = (".*",) if self.layers is None else tuple(self.layers)

        def place(name: str) -> int | None:
            matches = (fullmatch(p, name) or fullmatch(p, name.removesuffix(WEIGHT)) for p in patterns)
            return next((index for index, match in enumerate(matches) if match is not None), None)

        def wanted(name: str) -> bool:
            names.append(name)
            return place(name) is not None

        # Layers of the first pattern come first; within a pattern they stay in the order of the file.
        found = sorted(read_weights(self.file, wanted), key=lambda weight: place(weight.name) or 0)
        named = [weight for weight in found if weight.name.endswith("weight")]
        if self.layers is None and named:
            found = named  # beside tables of positions and the like
        if not found:
            raise UserError(
                f"{self.name}: no weight of two or more sides matches {listed(patterns)}; the file has "
                f"{listed(names, 8)}",
                code="MIM-S022",
            )
        if LAYERS.is_exceeded_by(len(found)):
            raise UserError(f"{self.name}: {len(found)} layers; {LAYERS.repair}", code="MIM-S023")
        return tuple(found)


def _sites(weights: Sequence[StoredWeight], kind: TensorKind | None, name: str) -> list[Site]:
    """Return the layers of weights, in their order."""
    input_first = {_last(w) for w in weights if w.values.ndim == _MATRIX and _is_input_first(w)}
    read = [_reading(weight, kind, name, input_first) for weight in weights]
    places = depths([found for found, _ in read])
    sites = []
    for weight, (found, geometry), depth in zip(weights, read, places, strict=True):
        dtype = str(weight.values.dtype).removeprefix("torch.")
        parameter = Parameter(weight.name, "weight", tuple(weight.values.shape), dtype)
        sites.append(Site(weight.layer, found, (), geometry, (parameter,), depth))
    return sites


def _last(weight: StoredWeight) -> str:
    return weight.layer.rpartition(".")[2]


def _is_input_first(weight: StoredWeight) -> bool:
    """Return whether a matrix is stored input first, as GPT-2's: its bias has as many entries as columns."""
    rows, columns = weight.values.shape
    return rows != columns and weight.outputs == columns


def _reading(
    weight: StoredWeight, kind: TensorKind | None, name: str, input_first: Collection[str]
) -> tuple[SiteKind, Geometry]:
    """Return the kind and geometry of a weight; square matrices are stored as others of their name."""
    if kind is None and weight.kind is not None and weight.geometry is not None:
        return weight.kind, weight.geometry
    shape = tuple(weight.values.shape)
    one, two, *kernel = shape
    sides, ones = tuple(kernel), (1,) * len(kernel)
    if not kernel:
        table = kind == "embedding" or (kind is None and _EMBEDDING.fullmatch(weight.layer) is not None)
        first = table or _is_input_first(weight) or (_last(weight) in input_first and one == two)
        geometry = Geometry(one, two, transposed=True) if first else Geometry(two, one)
        found: SiteKind = "embedding" if table else "linear"
    elif kind == "conv_transpose":
        found, geometry = kind, Geometry(one, two, sides, ones, transposed=True)
    else:
        # One input channel is that of a depthwise convolution, unless it has a single pixel.
        depthwise = two == 1 and (kind == "depthwise_conv" or (kind is None and math.prod(sides) > 1))
        geometry = Geometry(one, one, sides, ones, one) if depthwise else Geometry(two, one, sides, ones)
        found = "depthwise_conv" if depthwise else conv_kind(geometry)
    if kind is not None and kind != found:
        raise UserError(
            f"{name}: `{weight.layer}` ({shape_text(shape)}) cannot be the weight of a `{kind}` layer; "
            "remove `kind`, or choose other `layers`",
            code="MIM-S024",
        )
    return found, geometry
