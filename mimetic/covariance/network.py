"""What initializers look at beside covariances: a trained network that others begin from, or images."""

from dataclasses import dataclass
from hashlib import blake2b

from torch import Tensor, nn

from mimetic.graph.site import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A trained network, or one that is still to be trained.

    Attributes:
        origin: The network, as messages and plans show it, e.g. `stage small`.
        graph: Its sites.
        model: With its trained weights, on the CPU; None before it is trained.
        images_NCHW: Training images as it saw them; None where none are asked for.
        digest: Digest of weights and images; None before it is trained.
    """

    origin: str
    graph: Graph
    model: nn.Module | None = None
    images_NCHW: Tensor | None = None
    digest: str | None = None


def trained_network(origin: str, graph: Graph, model: nn.Module, images_NCHW: Tensor | None) -> Network:
    """Return a trained network with the digest of what it holds, exact to the bit."""
    state = blake2b(digest_size=16)
    tensors = {name: t for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    for name, tensor in (*tensors.items(), *(() if images_NCHW is None else (("images", images_NCHW),))):
        state.update(f"|{name}|{tuple(tensor.shape)}|".encode())
        state.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return Network(origin, graph, model, images_NCHW, state.hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImages:
    """Training images as a network sees them.

    Attributes:
        images_NCHW: Decoded and normalized; None where a plan is only looked at.
        digest: Digest of them; None likewise.
    """

    images_NCHW: Tensor | None = None
    digest: str | None = None


def training_images(images_NCHW: Tensor) -> TrainingImages:
    """Return images with their digest, exact to the bit."""
    state = blake2b(f"{tuple(images_NCHW.shape)}|".encode(), digest_size=16)
    state.update(images_NCHW.detach().cpu().float().contiguous().numpy().tobytes())
    return TrainingImages(images_NCHW, state.hexdigest())
