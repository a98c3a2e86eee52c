"""A trained network in memory: what statistics are measured on and what initializers copy from."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor, nn

from mimetic.covariance.capture import capture, run_forward
from mimetic.covariance.harvest import described
from mimetic.covariance.layout import filters_of, stored_shape
from mimetic.errors import UserError
from mimetic.graph.computed import tensor_in_use
from mimetic.graph.names import canonical_modules
from mimetic.graph.site import Graph, Site

Progress = Callable[[int, int], None]
"""`progress(done, total)`, of layers where weights are read, of images where they are needed."""

Initial = nn.Module | Mapping[str, Tensor]
"""The network at its initialization, or its parameters then by canonical name."""

_PIXELS = 8 * 224 * 224
_LARGEST_BATCH = 128
_WIDER_THAN_FLOAT32 = frozenset({torch.float64, torch.complex64, torch.complex128})


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network, or one that is still to be trained.

    Attributes:
        origin: The network's name in messages and plans, e.g. `stage small`.
        graph: Its sites.
        model: The network with its trained weights, on any device; None before it is trained.
        images_NCHW: Training images as it saw them: floating point, normalized. None where none are needed.
        initial: The network at its initialization, where that is known and needed.
    """

    origin: str
    graph: Graph
    model: nn.Module | None = None
    images_NCHW: Tensor | None = None
    initial: Initial | None = None

    @cached_property
    def digest(self) -> str | None:
        """Return a digest of weights, buffers and images, exact to the bit; None before training."""
        if self.model is None:
            return None
        state = blake2b(digest_size=16)
        tensors = {name: t for name, t in self.model.state_dict().items() if isinstance(t, Tensor)}
        images = {} if self.images_NCHW is None else {"images": self.images_NCHW}
        for name, tensor in (*tensors.items(), *images.items()):
            state.update(f"|{name}|{tuple(tensor.shape)}|".encode())
            values = tensor.detach().cpu()
            exact = values if values.dtype in _WIDER_THAN_FLOAT32 else values.float()
            state.update(exact.contiguous().numpy().tobytes())
        return state.hexdigest()

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Return the layers by canonical name."""
        if self.model is None:
            raise ValueError(f"{self.origin} is not trained yet")
        return canonical_modules(self.model)

    @property
    def inner(self) -> nn.Module:
        """Return the network without wrappers such as DDP and torch.compile."""
        return self.modules[""]

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        return next((p.device for p in self.inner.parameters()), torch.device("cpu"))

    def weight(self, site: Site) -> Tensor:
        """Return a layer's filters (O, I, *kernel), float64 on the CPU.

        Raises:
            UserError: If they have no values, or values that are not finite.
        """
        assert site.geometry is not None
        name = f"{self.origin}: `{site.layer}`"
        filters_OIK = filters_of(self.stored_weight(site), site.geometry, name=name).to(torch.float64)
        if not bool(torch.isfinite(filters_OIK).all()):
            raise UserError(
                f"{self.origin}: the weight of `{site.layer}` "
                f"({described(site.kind, site.geometry)}) has NaN or "
                "infinite values: training diverged, or the file is damaged; train with a smaller learning "
                "rate, or take another seed or checkpoint",
                code="MIM-V011",
            )
        return filters_OIK

    def stored_weight(self, site: Site) -> Tensor:
        """Return the weight that a layer uses, as it stores it, on the CPU.

        Raises:
            UserError: If it has no values.
        """
        layer = self.modules[site.layer]
        if any(parameter.is_meta for parameter in layer.parameters()):
            raise UserError(
                f"{self.origin}: `{site.layer}` is on the meta device and has no values; "
                "build the network on a real device and load its weights",
                code="MIM-V010",
            )
        return tensor_in_use(layer, "weight")

    def initial_weight(self, site: Site) -> Tensor:
        """Return a layer's filters before training, as `weight` does.

        Raises:
            UserError: If they are unknown, or do not fit the layer.
        """
        assert site.geometry is not None
        if self.initial is None:
            raise UserError(
                f"{self.origin}: `of: change` needs the weights before training, and only those after it are "
                "known; take a stage or an arm, pass `initial=` in Python, or use `of: weights`",
                code="MIM-V012",
            )
        weight: Tensor | None
        if isinstance(self.initial, nn.Module):
            layer = canonical_modules(self.initial).get(site.layer)
            weight = None if layer is None else tensor_in_use(layer, "weight")
        else:
            weight = self.initial.get(f"{site.layer}.weight" if site.layer else "weight")
        if weight is None or tuple(weight.shape) != stored_shape(site.geometry):
            state = "is absent" if weight is None else f"has shape {tuple(weight.shape)}"
            raise UserError(
                f"{self.origin}: the initial weight of `{site.layer}` "
                f"({described(site.kind, site.geometry)}) "
                f"{state}; give the same network before its training",
                code="MIM-V013",
            )
        name = f"{self.origin}: the initial weight of `{site.layer}`"
        return filters_of(weight.detach(), site.geometry, name=name).to("cpu", torch.float64)

    def weight_or_change(self, site: Site, *, change: bool) -> Tensor:
        """Return the filters of a layer, or their change since the network's own initialization."""
        weight = self.weight(site)
        return weight - self.initial_weight(site) if change else weight

    def first_images(self, count: int, *, statistic: str, first: Site) -> Tensor:
        """Return the first images, at most `count` of them.

        Raises:
            UserError: If there are none, or they are not floating point.
        """
        images = self.images_NCHW
        if images is None or len(images) == 0:
            raise UserError(
                f"{self.origin}: `{statistic}` needs images, at `{first.layer}` "
                f"({described(first.kind, first.geometry)}) and later layers, and there are none; "
                "give the data the network was trained on",
                code="MIM-V014",
            )
        if not images.is_floating_point():
            raise UserError(
                f"{self.origin}: the images are {images.dtype}; give them in floating point, normalized "
                "as the network saw them in training",
                code="MIM-V015",
            )
        return images[:count]

    def batches(self, images_NCHW: Tensor, device: torch.device) -> Iterator[Tensor]:
        """Yield images in batches of bounded memory: at most 8 of 224 pixels a side."""
        pixels = max(1, images_NCHW[0, 0].numel())
        for batch in torch.split(images_NCHW, max(1, min(_LARGEST_BATCH, _PIXELS // pixels))):
            yield batch.to(device)

    def executed(self, sites: Collection[Site], image_1CHW: Tensor) -> dict[str, Site]:
        """Return the sites whose modules one forward calls, by the module's name in `inner`.

        A layer can lend its weight without being called (attention's output projection does).

        Raises:
            UserError: If the forward fails on such images.
        """
        raw = {id(module): name for name, module in self.inner.named_modules()}
        names = {raw[id(self.modules[site.layer])]: site for site in sites}
        layers = {name: self.modules[site.layer] for name, site in names.items()}
        called: set[str] = set()
        with capture(layers, lambda name, *_: called.add(name)):
            run_forward(self.inner, image_1CHW.to(self.device), origin=self.origin)
        return {name: site for name, site in names.items() if name in called}


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Training images as a network sees them.

    Attributes:
        images_NCHW: Decoded and normalized; None where only a plan is made.
    """

    images_NCHW: Tensor | None = None

    @cached_property
    def digest(self) -> str | None:
        """Return a digest of the images, exact to the bit; None where only a plan is made."""
        if self.images_NCHW is None:
            return None
        state = blake2b(f"{tuple(self.images_NCHW.shape)}|".encode(), digest_size=16)
        state.update(self.images_NCHW.detach().cpu().float().contiguous().numpy().tobytes())
        return state.hexdigest()
