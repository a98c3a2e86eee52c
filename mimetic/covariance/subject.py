"""A network about to be measured: its weights, its weights before training, the images it is shown."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mimetic.covariance.gradients import eval_mode
from mimetic.covariance.harvest import described
from mimetic.covariance.layout import filters_of, stored_shape
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules, canonical_parameters
from mimetic.graph.site import Graph, Site

Progress = Callable[[int, int], None]
"""`progress(done, total)`: of layers where weights are read, of images where they are needed."""

Initial = nn.Module | Mapping[str, Tensor]
"""The network at its initialization, or its parameters then by canonical name."""

_PIXELS = 8 * 224 * 224
_MOST = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network, and what a measurement may need beside it.

    Attributes:
        model: The network, on its device.
        graph: Its sites.
        origin: Its name in messages and plans, e.g. `stage small`.
        images_NCHW: Images as it saw them in training: floating point, normalized.
        initial: The network at its initialization.
        seed: Seed of random probes.
        kinds: Kinds of layers wanted; all where None.
        progress: Told how far the work is.
    """

    model: nn.Module
    graph: Graph
    origin: str
    images_NCHW: Tensor | None = None
    initial: Initial | None = None
    seed: int = 0
    kinds: Collection[str] | None = None
    progress: Progress | None = None
    modules: dict[str, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", canonical_modules(self.model))

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def inner(self) -> nn.Module:
        """Return the network without what wraps it as a whole (DDP, torch.compile)."""
        return self.modules[""]

    def tell(self, done: int, total: int) -> None:
        """Report progress, where somebody listens."""
        if self.progress is not None:
            self.progress(done, total)

    def weight(self, site: Site) -> Tensor:
        """Return a layer's filters (O, I, *kernel), float64 on the CPU.

        Raises:
            UserError: If they hold no values, or values that are not finite.
        """
        assert site.geometry is not None
        weight = self.modules[site.layer].weight
        assert isinstance(weight, Tensor)
        if weight.is_meta:
            message = f"{self.origin}: `{site.layer}` lies on the meta device and holds no values; "
            raise UserError(message + "build the network on a real device and load its weights")
        filters_OIK = filters_of(weight.detach(), site.geometry).to("cpu", torch.float64)
        if not bool(torch.isfinite(filters_OIK).all()):
            message = f"{self.origin}: the weight of `{site.layer}` ({_shown(site)}) holds NaN or infinity: "
            message += "its training diverged, or its file is damaged; train it with a smaller learning "
            raise UserError(message + "rate, or take another seed or checkpoint")
        return filters_OIK

    def initial_weight(self, site: Site) -> Tensor:
        """Return a layer's filters before training, as `weight` does.

        Raises:
            UserError: If they are not known, or those of another layer.
        """
        assert site.geometry is not None
        if self.initial is None:
            message = f"{self.origin}: `of: change` needs the weights before training, and only those after "
            message += "it are known here; take a stage or an arm, pass `initial=` in Python, "
            raise UserError(message + "or use `of: weights`")
        known = canonical_parameters(self.initial) if isinstance(self.initial, nn.Module) else self.initial
        weight = known.get(f"{site.layer}.weight" if site.layer else "weight")
        expected = stored_shape(site.geometry)
        if weight is None or tuple(weight.shape) != expected:
            found = "is absent" if weight is None else f"has shape {tuple(weight.shape)}"
            message = f"{self.origin}: among the initial weights that of `{site.layer}` ({_shown(site)}) "
            raise UserError(f"{message}{found}; give the same network before its training")
        return filters_of(weight.detach(), site.geometry).to("cpu", torch.float64)

    def images(self, count: int, *, what: str, first: Site) -> Tensor:
        """Return the first images, at most `count` of them.

        Raises:
            UserError: If there are none, or the network does not take such images.
        """
        images = self.images_NCHW
        if images is None or len(images) == 0:
            message = f"{self.origin}: `{what}` needs images, at `{first.layer}` ({_shown(first)}) and after "
            raise UserError(message + "it, and there are none; give the data the network was trained on")
        if not images.is_floating_point():
            message = (
                f"{self.origin}: the images are {images.dtype}; give them in floating point, normalized "
            )
            raise UserError(message + "as the network saw them in training")
        return images[:count]

    def batches(self, images_NCHW: Tensor, device: torch.device) -> Iterator[Tensor]:
        """Yield images in batches of bounded memory: at most 8 of 224 pixels a side."""
        pixels = max(1, images_NCHW[0, 0].numel())
        for batch in torch.split(images_NCHW, max(1, min(_MOST, _PIXELS // pixels))):
            yield batch.to(device)

    def called(self, sites: Collection[Site], image_1CHW: Tensor) -> dict[str, Site]:
        """Return the sites whose modules one forward calls, by the name the module has in `inner`.

        A layer can lend its weight without being called (attention's output projection does).

        Raises:
            UserError: If the forward fails on such images.
        """
        modules = dict(self.inner.named_modules())
        raw = {id(module): name for name, module in modules.items()}
        names = {raw[id(self.modules[site.layer])]: site for site in sites}
        seen: set[str] = set()
        with ExitStack() as stack, torch.no_grad(), eval_mode(self.inner):
            for name in names:
                hook = modules[name].register_forward_hook(_noting(seen, name))
                stack.callback(hook.remove)
            try:
                self.inner(image_1CHW.to(self.device))
            except (RuntimeError, ValueError, TypeError) as error:
                shape = "×".join(str(side) for side in image_1CHW.shape[1:])
                message = f"{self.origin}: the network does not take images of {shape}: {error}; "
                raise UserError(message + "give the data it was trained on, at its size") from error
        return {name: site for name, site in names.items() if name in seen}


def _noting(seen: set[str], name: str) -> Callable[..., None]:
    return lambda *_: seen.add(name)


def _shown(site: Site) -> str:
    return described(site.kind, site.geometry)
