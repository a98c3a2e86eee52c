"""What a network's layers see: its inputs at a layer, the order of its layers, statistics for its norms.

The forward runs in evaluation mode, without gradients, and only as far as the requested layer.

Shapes: N images, C channels, M samples (images × positions).
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimetic.covariance.capture import capture, run_forward
from mimetic.covariance.procrustes import Alignment, aligned
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules

BATCH = 100
"""Images a forward takes at once: fixed, since sums in another order have other last bits."""


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer in a forward.

    Attributes:
        layer: Canonical name.
        after: Layer whose output is this one's input, unchanged; None where anything is between.
    """

    layer: str
    after: str | None = None


class _ReachedError(Exception):
    """Ends a forward at the requested layer."""


def steps(
    model: nn.Module, layers: Collection[str], images_NCHW: Tensor, *, origin: str
) -> tuple[LayerCall, ...]:
    """Return the calls of layers in one forward, in order.

    Raises:
        UserError: If the forward fails on such images.
    """
    modules = canonical_modules(model)
    calls: list[LayerCall] = []
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # with the tensors, since a freed one's id is reused

    def note(name: str, given: Tensor, output: Tensor) -> None:
        source = outputs.get(id(given))
        # An in-place activation preserves the tensor's identity, but increments its version.
        unchanged = source is not None and source[2] == given._version  # noqa: SLF001
        calls.append(LayerCall(name, source[0] if source is not None and unchanged else None))
        outputs[id(output)] = (name, output, output._version)  # noqa: SLF001

    with capture({name: modules[name] for name in layers}, note):
        run_forward(model, images_NCHW, origin=origin)
    return tuple(calls)


def norms(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that keep running statistics."""
    return tuple(
        name
        for name, module in canonical_modules(model).items()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    )


def alignment(
    reference: nn.Module,
    other: nn.Module,
    layer: str,
    images_NCHW: Tensor,
    *,
    positions: int = 1,
    origin: str,
) -> Alignment:
    """Return the rotation between the inputs that a layer has in two networks, over images and positions.

    Args:
        reference: The network whose basis counts.
        other: The network to be rotated; it may have another width.
        layer: Name of the layer in both.
        images_NCHW: Images for both.
        positions: Pixels per channel in the inputs of a linear layer behind a flattened map.
        origin: Name of the pair for messages.

    Raises:
        UserError: If a forward fails, or features are not finite.
    """
    pairs = zip(
        inputs_at(reference, layer, images_NCHW, positions=positions, origin=origin),
        inputs_at(other, layer, images_NCHW, positions=positions, origin=origin),
        strict=True,
    )
    cross: Tensor | None = None
    energies, samples = [0.0, 0.0], 0
    for one_CM, two_CM in pairs:
        product_RN = one_CM @ two_CM.T
        cross = product_RN if cross is None else cross + product_RN
        energies[0] += float(one_CM.square().sum())
        energies[1] += float(two_CM.square().sum())
        samples += one_CM.shape[1]
    assert cross is not None
    if not bool(torch.isfinite(cross).all()):
        raise UserError(
            f"{origin}: the features at the input of `{layer}` are not finite; check the weights "
            "and the images",
            code="MIM-V032",
        )
    return aligned(cross / samples, energies[0] / samples, energies[1] / samples)


def refresh_statistics(model: nn.Module, layer: str, images_NCHW: Tensor, *, origin: str) -> None:
    """Set a norm layer's running mean and variance to those of its inputs over images, in place.

    Raises:
        UserError: If the forward fails or the statistics are not finite.
    """
    module = canonical_modules(model)[layer]
    total: Tensor | None = None
    squares: Tensor | None = None
    samples = 0
    for inputs_CM in inputs_at(model, layer, images_NCHW, origin=origin):
        sums, square = inputs_CM.sum(dim=1), inputs_CM.square().sum(dim=1)
        total = sums if total is None else total + sums
        squares = square if squares is None else squares + square
        samples += inputs_CM.shape[1]
    assert total is not None
    assert squares is not None
    # The unbiased variance, as the running one of torch.
    mean_C = total / samples
    variance_C = (squares / samples - mean_C.square()).clamp(min=0.0) * (samples / max(1, samples - 1))
    if not bool(torch.isfinite(mean_C).all() and torch.isfinite(variance_C).all()):
        raise UserError(
            f"{origin}: the inputs of the norm layer `{layer}` are not finite; check the weights "
            "and the images",
            code="MIM-V033",
        )
    with torch.no_grad():
        module.running_mean.copy_(mean_C)  # type: ignore[operator]
        module.running_var.copy_(variance_C)  # type: ignore[operator]


def inputs_at(
    model: nn.Module, layer: str, images_NCHW: Tensor, *, positions: int = 1, origin: str
) -> Iterator[Tensor]:
    """Yield a layer's inputs as (channels, samples) in float64, a batch of images at a time.

    Raises:
        UserError: If the forward fails, or never calls the layer.
    """
    module = canonical_modules(model)[layer]
    reached: list[Tensor] = []

    def stop(_name: str, given: Tensor, _output: None) -> None:
        reached.append(given)
        raise _ReachedError

    for batch in torch.split(images_NCHW, BATCH):
        with suppress(_ReachedError), capture({layer: module}, stop, before=True):
            run_forward(model, batch, origin=origin)
        if not reached:
            raise UserError(f"{origin}: the forward never calls `{layer}`; leave it out", code="MIM-V031")
        yield _by_channel(reached.pop(), positions, last=isinstance(module, nn.Linear))


def _by_channel(inputs: Tensor, positions: int, *, last: bool) -> Tensor:
    """Return inputs (N, C, *positions), (N, C·M) or (N, …, C) as (C, samples)."""
    if last and positions == 1:
        return inputs.double().flatten(0, -2).T
    if last:
        return inputs.double().view(len(inputs), -1, positions).transpose(0, 1).flatten(1)
    return inputs.double().transpose(0, 1).flatten(1)
