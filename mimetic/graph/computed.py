"""Weights that a layer computes in every forward from parameters that it stores.

Weight normalization, spectral normalization and pruning of `torch.nn.utils`, as hooks or as parametrizations,
and any `torch.nn.utils.parametrize`. A rule sees the weight that the layer uses, under the name and with the
stream that it has without the parametrization; the stored parameters are its parts. `solve` finds the values
of the parts for which the layer uses given values; it does not change the layer.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mimetic.errors import UserError
from mimetic.graph.own import own_buffers, own_children, own_parameters, own_pre_hooks
from mimetic.streams import keyed_global_rng
from mimetic.threads import one_thread

_CLOSE = 1e-4
"""Root mean square error, relative to that of the values, by which a parametrization may miss them; four
roundings of the weight's dtype if that is more."""


class Solution(NamedTuple):
    """Values of the parts of a computed weight.

    Attributes:
        parts: New values of parameters and buffers, on the CPU, by name below the layer.
        used: The weight that the layer computes from them.
        free: Which of its entries are those that were wanted; None if all are.
    """

    parts: Mapping[str, Tensor]
    used: Tensor
    free: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that a layer computes in every forward.

    Attributes:
        layer: The layer.
        local: The tensor's name, e.g. `weight`.
        by: What computes it, e.g. `weight norm`.
        stored: The parameters from which it is computed, by name below the layer.
        like: A tensor of its shape and dtype.
        normalized: Whether its norm is fixed, and values are set up to a factor.
        obstacle: Why it cannot be set; None if it can.
        hook: The hook that computes it; None for a parametrization.
    """

    layer: nn.Module
    local: str
    by: str
    stored: Mapping[str, nn.Parameter]
    like: Tensor
    normalized: bool = False
    obstacle: str | None = None
    hook: WeightNorm | SpectralNorm | BasePruningMethod | None = None

    def solve(self, values: Tensor, *, name: str, seed: int) -> Solution:
        """Return the values of the parts for which the layer uses given values.

        Args:
            values: Wanted values on the CPU.
            name: Canonical name of the tensor, for messages and random streams.
            seed: Seed of the run: an orthogonal parametrization draws what it adds to a rectangular matrix.

        Raises:
            UserError: If the layer cannot use these values: they are not orthogonal, or all zero where
                a norm is divided by.
        """
        solve = _solve_parametrization if self.hook is None else _solve_hook
        values = values.to(self.like.dtype)
        try:
            with torch.no_grad(), one_thread(), keyed_global_rng(seed, name, "parametrization"):
                solution = solve(self, values)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise UserError(f"{name}: {self.by} cannot be set: {error}", code="MIM-G030") from error
        _check(self, solution, values, name)
        return solution

    def current(self) -> Tensor:
        """Return a copy, on the CPU, of what the layer uses now in evaluation mode."""
        with torch.no_grad():
            if self.hook is None:
                return cast("Tensor", _twin(self)())
            stand_in = _stand_in(self)
            assert callable(self.hook)
            self.hook(stand_in, ())
            return cast("Tensor", vars(stand_in)[self.local])


def computed_in(layer: nn.Module) -> Iterator[Computed]:
    """Yield the tensors that a layer computes, in the order of their hooks and parametrizations."""
    for hook in own_pre_hooks(layer):
        if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
            found = _hooked(layer, hook)
            if found is not None:
                yield found
    parametrizations = own_children(layer).get("parametrizations")
    if isinstance(parametrizations, nn.ModuleDict):
        for local, listed in parametrizations.items():
            if isinstance(listed, ParametrizationList):
                yield _parametrized(layer, local, listed)


def tensors_of_layer(layer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a layer by local name; of weights that it computes, tensors of the shape."""
    computed = list(computed_in(layer))
    parts = {name for found in computed for name in found.stored}
    stored = {name: p for name, p in own_parameters(layer).items() if p is not None and name not in parts}
    return {**stored, **{found.local: found.like for found in computed}}


def tensor_like(layer: nn.Module, local: str) -> Tensor | None:
    """Return a parameter of a layer, or a tensor of the shape of a weight that it computes."""
    stored = own_parameters(layer).get(local)
    if stored is not None:
        return stored
    return next((found.like for found in computed_in(layer) if found.local == local), None)


def tensor_in_use(layer: nn.Module, local: str) -> Tensor:
    """Return a copy, on the CPU, of a tensor that a layer uses in evaluation mode, computed or stored.

    Raises:
        KeyError: If the layer has no such tensor.
    """
    computed = next((found for found in computed_in(layer) if found.local == local), None)
    stored = own_parameters(layer).get(local)
    if computed is None and stored is None:
        raise KeyError(local)
    return computed.current() if computed is not None else copied(cast("Tensor", stored))


def without_parametrization(layer: nn.Module) -> nn.Module:
    """Return a shallow copy of a layer in which what it computes are parameters, without values."""
    computed = list(computed_in(layer))
    if not computed:
        return copy.copy(layer)
    cls: type[nn.Module] = type(layer)
    if "parametrizations" in own_children(layer):  # its class computes the weight; the one below does not
        cls = next(base for base in cls.__mro__[1:] if issubclass(base, nn.Module))
    plain: nn.Module = cls.__new__(cls)
    own = vars(plain)
    own |= vars(layer)
    for found in computed:
        own.pop(found.local, None)  # what a hook computed last
    own["_parameters"] = own_parameters(layer) | {
        found.local: nn.Parameter(torch.empty_like(found.like, device="meta"), requires_grad=False)
        for found in computed
    }
    own["_modules"] = {k: child for k, child in own_children(layer).items() if k != "parametrizations"}
    return plain


def _hooked(layer: nn.Module, hook: WeightNorm | SpectralNorm | BasePruningMethod) -> Computed | None:
    if isinstance(hook, BasePruningMethod):
        local, by, parts = str(vars(hook)["_tensor_name"]), "pruning", ["_orig"]
    elif isinstance(hook, SpectralNorm):
        local, by, parts = hook.name, "spectral norm", ["_orig"]
    else:
        local, by, parts = hook.name, "weight norm", ["_g", "_v"]
    own = own_parameters(layer)
    # Hooks on hooks (pruning of `weight_v`): the parts are computed themselves.
    stored = {name: p for name in (local + part for part in parts) if (p := own.get(name)) is not None}
    if not stored:
        return None
    whole = len(stored) == len(parts)
    return Computed(
        layer,
        local,
        by,
        stored,
        like=list(stored.values())[-1],
        normalized=isinstance(hook, SpectralNorm),
        obstacle=None if whole else f"{by} of tensors that are computed themselves cannot be set",
        hook=hook,
    )


def _parametrized(layer: nn.Module, local: str, listed: ParametrizationList) -> Computed:
    names = [type(p).__name__.removeprefix("_") for p in listed]
    lacking = [name for name, p in zip(names, listed, strict=True) if not hasattr(p, "right_inverse")]
    known = {"WeightNorm": "weight norm", "SpectralNorm": "spectral norm"}
    by = " and ".join(known.get(name, f"the parametrization {name}") for name in names)
    stored = {
        f"parametrizations.{local}.{name}": p for name, p in own_parameters(listed).items() if p is not None
    }
    return Computed(
        layer,
        local,
        by,
        stored,
        like=_shape_of(listed),
        normalized="SpectralNorm" in names,
        obstacle=f"{lacking[0]} has no `right_inverse`" if lacking else None,
    )


def _shape_of(listed: ParametrizationList) -> Tensor:
    """Return a tensor of the shape that a parametrization computes, without values."""
    if type(listed[0]).__name__ == "_WeightNorm" and len(listed) == 1:
        return torch.empty_like(list(listed.parameters())[-1], device="meta")
    memo: dict[int, object] = {}
    for tensor in (*listed.parameters(), *listed.buffers()):
        memo[id(tensor)] = _same_kind(tensor, torch.empty_like(tensor, device="meta"))
    with torch.no_grad():
        try:
            result = copy.deepcopy(listed, memo).eval()()
        except (RuntimeError, TypeError, NotImplementedError):  # it needs values, or has an error
            return torch.empty_like(next(iter(listed.parameters())), device="meta")
    return result if isinstance(result, Tensor) else torch.empty(0)


def _solve_hook(computed: Computed, values: Tensor) -> Solution:
    """Run the hook itself on a stand-in of the layer with new parts."""
    local, hook = computed.local, computed.hook
    stand_in = _stand_in(computed)
    own = vars(stand_in)
    free = None
    parts: dict[str, Tensor] = {}
    if isinstance(hook, WeightNorm):
        v = own["_parameters"][f"{local}_v"]
        parts[f"{local}_g"], parts[f"{local}_v"] = _norm_and_direction(values, v, hook.dim)
    else:
        parts[f"{local}_orig"] = values
        if isinstance(hook, SpectralNorm):
            parts[f"{local}_u"], parts[f"{local}_v"] = singular_vectors(values, hook.dim)
        else:
            free = own["_buffers"][f"{local}_mask"] != 0
    # The hook computes the weight of the stand-in from the new parts.
    for part, tensor in parts.items():
        (own["_parameters"] if part in own["_parameters"] else own["_buffers"])[part] = tensor
    assert callable(hook)
    hook(stand_in, ())
    return Solution(parts, vars(stand_in)[local].detach(), free)


def _solve_parametrization(computed: Computed, values: Tensor) -> Solution:
    """Run the right inverse on a copy of the parametrization, and compute its singular vectors anew."""
    path, twin = f"parametrizations.{computed.local}", _twin(computed)
    originals = [p for p in own_parameters(twin).values() if p is not None]
    direction = originals[-1].clone()
    twin.right_inverse(values.clone())
    if type(twin[0]).__name__ == "_WeightNorm":  # a direction of zeros would give 0 / 0
        norm, found = originals
        found.copy_(torch.where(norm == 0, _nonzero(direction, int(vars(twin[0])["dim"])), found))
    inputs: tuple[Tensor, ...] = tuple(originals)
    for step in twin:
        if type(step).__name__ == "_SpectralNorm" and inputs[0].ndim > 1:
            for buffer, vector in zip("uv", singular_vectors(inputs[0], int(vars(step)["dim"])), strict=True):
                own_buffers(step)[f"_{buffer}"] = vector
        inputs = (step(*inputs),)
    parts = {f"{path}.{name}": tensor.detach() for name, tensor in twin.state_dict(keep_vars=True).items()}
    return Solution(parts, inputs[0].detach())


def _stand_in(computed: Computed) -> nn.Module:
    """Return a copy of a layer with a hook, in evaluation mode: in training, spectral norm iterates."""
    stand_in = copy.copy(computed.layer)
    own = vars(stand_in)
    own["training"] = False
    for group in ("_parameters", "_buffers"):
        own[group] = {name: None if t is None else copied(t) for name, t in own[group].items()}
    own.pop(computed.local, None)
    return stand_in


def _twin(computed: Computed) -> ParametrizationList:
    """Return a copy of a parametrization, in evaluation mode."""
    listed = computed.layer.get_submodule(f"parametrizations.{computed.local}")
    assert isinstance(listed, ParametrizationList)
    memo = {id(t): _same_kind(t, copied(t)) for t in (*listed.parameters(), *listed.buffers())}
    return copy.deepcopy(listed, memo).eval()


def _norm_and_direction(values: Tensor, direction: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g and v with g·v/|v| = values; rows of zeros keep their direction, because 0 / 0 is not 0."""
    norm = torch.norm_except_dim(values, 2, dim)
    return norm, torch.where(norm == 0, _nonzero(direction, dim), values)


def _nonzero(direction: Tensor, dim: int) -> Tensor:
    """Return a direction without rows of zeros, such as those of padding: they point along the diagonal."""
    return torch.where(torch.norm_except_dim(direction, 2, dim) == 0, torch.ones_like(direction), direction)


def singular_vectors(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the first left and right singular vectors of a weight as a matrix with the rows of a side."""
    rows = weight.movedim(dim, 0)
    matrix = rows.reshape(len(rows), -1)  # a vector is a column
    exact = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
    wide = exact.shape[0] <= exact.shape[1]
    gram = exact @ exact.mH if wide else exact.mH @ exact
    vector = torch.linalg.eigh(gram).eigenvectors[:, -1]
    other = torch.nn.functional.normalize((exact.mH if wide else exact) @ vector, dim=0)
    left, right = (vector, other) if wide else (other, vector)
    return left.to(weight.dtype), right.to(weight.dtype)


def _check(computed: Computed, solution: Solution, values: Tensor, name: str) -> None:
    """Refuse values that the layer would not use as they are.

    Raises:
        UserError: With the repair.
    """
    repair = "choose another initializer, or initialize the model before it is applied"
    if not bool(solution.used.isfinite().all()):
        raise UserError(
            f"{name}: with these values {computed.by} makes the weight infinite or not a number; {repair}",
            code="MIM-G031",
        )
    if computed.normalized:
        return
    wanted = values if solution.free is None else values * solution.free
    error, size = (t.abs().double().square().mean().sqrt() for t in (solution.used - wanted, wanted))
    if float(error) > max(_CLOSE, 4 * torch.finfo(values.dtype).eps) * float(size):
        raise UserError(
            f"{name}: {computed.by} cannot represent these values (root mean square {float(size):.3g}): the "
            f"weight would differ by {float(error):.3g}; {repair}",
            code="MIM-G032",
        )


def copied(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, gathered from its shards if it is sharded."""
    gather = getattr(tensor.detach(), "full_tensor", None)
    return (tensor.detach() if gather is None else gather()).to("cpu", copy=True)


def _same_kind(tensor: Tensor, values: Tensor) -> Tensor:
    return nn.Parameter(values, requires_grad=False) if isinstance(tensor, nn.Parameter) else values
