"""Trace: in which order, and how often, one forward uses a network's layers.

The forward runs with shapes instead of values: every parameter and buffer is replaced by a tensor on the
meta device, so it costs no memory and no arithmetic. What is recorded is the *use* of a parameter by any
torch call, not only the call of its layer: so class tokens, the fused projections of attention and
weights read by another module have their true place.

The live model is as before afterwards. During the trace each module's attributes are a copy (with
containers copied one level deep) and the originals are put back; the user's hooks do not run, except
those of `torch.nn.utils`, which compute weights; random streams are restored. What a forward does to
the world outside the model, such as printing, does happen.
"""

import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mimetic.graph.names import walk
from mimetic.streams import keyed_global_rng

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_UNTOUCHED = frozenset(
    (*_HOOKS, "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_state_dict_hooks")
)
_KEPT_VALUES = 16
"""Buffers up to this many entries keep their values, copied: forwards branch on counters and flags."""


@dataclass(slots=True)
class Trace:
    """What one forward did.

    Attributes:
        first: Position of the first use of each parameter or module, by id.
        calls: Number of calls of each module, of uses of each parameter, by id.
    """

    first: dict[int, int] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    def record(self, identity: int) -> None:
        """Note one more use."""
        self.first.setdefault(identity, len(self.first))
        self.calls[identity] = self.calls.get(identity, 0) + 1


def trace(model: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> tuple[Trace | None, str | None]:
    """Run one forward without values, and tell what it used.

    Inputs are tried in training mode, where auxiliary heads take part, and then in evaluation mode.

    Args:
        model: Any module on any device; it is left as it was found.
        inputs: Positional arguments to try, in order; tensors may be on any device.

    Returns:
        The trace and None, or None and the reason why no input could be traced.
    """
    model = unwrapped(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return None, "the model is compiled by TorchScript, which runs outside Python"
    reason = "no input could be guessed for it; give an example input"
    for number, (training, arguments) in enumerate(product((True, False), inputs)):
        try:
            return _attempt(model, arguments, training=training), None
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            if number == 0:
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None, reason


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what the outer wrappers of a model hold."""
    for _, canonical, module in walk(model):
        if canonical:
            break
        model = module
    return model


def _attempt(model: nn.Module, arguments: tuple[Any, ...], *, training: bool) -> Trace:
    recorded = Trace()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        substitutes = stack.enter_context(_without_values(model, recorded, training=training))
        stack.enter_context(_Recorder(recorded, substitutes))
        model(*(_shapes(argument) for argument in arguments))
    return recorded


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave random streams, gradients, warnings and compilers alone."""
    numpy = sys.modules.get("numpy")
    python_state, numpy_state = random.getstate(), None if numpy is None else numpy.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(keyed_global_rng("trace"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)


@contextmanager
def _without_values(model: nn.Module, recorded: Trace, *, training: bool) -> Iterator[dict[int, int]]:
    """Replace the tensors of a model by shapes, and put the originals back afterwards.

    Yields:
        The id of the live tensor by the id of whatever stands for it.
    """
    modules = list(model.modules())
    saved = [(module, dict(module.__dict__)) for module in modules]
    stand_in = _StandIns()
    hooks = OrderedDict({-1: _call_recorder(recorded)})
    try:
        for module in modules:
            _replace(module, stand_in, hooks, training=training)
        yield stand_in.live
    finally:
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def _replace(
    module: nn.Module, stand_in: "_StandIns", hooks: OrderedDict[int, Any], *, training: bool
) -> None:
    own = module.__dict__
    for name, value in list(own.items()):
        if name not in _UNTOUCHED and isinstance(value, Tensor | list | dict | set | tuple):
            own[name] = stand_in(value)
    own["_parameters"] = {name: stand_in(value) for name, value in own["_parameters"].items()}
    own["_buffers"] = {name: stand_in(value) for name, value in own["_buffers"].items()}
    own["_modules"] = dict(own["_modules"])
    own["training"] = training
    if "_compiled_call_impl" in own:
        own["_compiled_call_impl"] = None
    weight_hooks = {key: hook for key, hook in own["_forward_pre_hooks"].items() if _computes_weights(hook)}
    own["_forward_pre_hooks"] = OrderedDict({**hooks, **weight_hooks}) if weight_hooks else hooks
    for name in _HOOKS[1:]:
        own[name] = OrderedDict()


def _call_recorder(recorded: Trace) -> Callable[[nn.Module, Any], None]:
    def record(module: nn.Module, _: Any) -> None:
        recorded.record(id(module))

    return record


def _computes_weights(hook: Any) -> bool:
    """Tell weight and spectral normalization and pruning from hooks that only look on."""
    return str(type(hook).__module__).startswith("torch.nn.utils") or str(
        getattr(hook, "__module__", "")
    ).startswith("torch.nn.utils")


class _StandIns:
    """Stand-ins without values for tensors, one for each, also inside plain containers."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self._made: dict[int, tuple[Any, Any]] = {}  # the original is held too, so that no id is reused

    def __call__(self, value: Any) -> Any:
        """Return the stand-in of a tensor, a copied container, or the value itself."""
        if id(value) in self._made:
            return self._made[id(value)][1]
        made = value
        if isinstance(value, Tensor):
            made = _shape_of(value)
            self.live[id(made)] = self.live[id(value)] = id(value)
        elif type(value) in {list, tuple, set}:
            if type(value) is not tuple or any(isinstance(item, Tensor) for item in value):
                made = type(value)(self(item) if isinstance(item, Tensor) else item for item in value)
        elif type(value) in {dict, OrderedDict}:
            made = type(value)(
                (key, self(item) if isinstance(item, Tensor) else item) for key, item in value.items()
            )
        if made is not value:
            self._made[id(value)] = (value, made)
        return made


def _shape_of(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape without values; a short buffer keeps them, in a copy."""
    if isinstance(tensor, nn.Parameter):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    if type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.numel() <= _KEPT_VALUES:
        return tensor.detach().clone()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _shapes(argument: Any) -> Any:
    """Move the tensors of an argument to the meta device."""
    if isinstance(argument, Tensor):
        return argument.detach().to("meta")
    if type(argument) in {list, tuple}:
        return type(argument)(_shapes(item) for item in argument)
    if type(argument) is dict:
        return {key: _shapes(item) for key, item in argument.items()}
    return argument


class _Recorder(TorchFunctionMode):
    """Note every torch call that makes tensors from a parameter, and keep values out of it.

    Constants a forward builds on a real device meet tensors without values: they lose theirs then.
    """

    def __init__(self, recorded: Trace, live: dict[int, int]) -> None:
        super().__init__()
        self.recorded, self.live = recorded, live

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch call without values."""
        named = {} if kwargs is None else kwargs
        used: list[int] = []
        real, meta = _look(args, named, self.live, used)
        if real and meta:
            args, named = _shapes(args), _shapes(named)
        fast = _SHAPE_RULES.get(func)
        result = NotImplemented if fast is None else fast(*args, **named)
        if result is NotImplemented:
            result = func(*args, **named)
        if used and isinstance(result, Tensor | tuple | list):
            for identity in used:
                self.recorded.record(identity)
        return result


def _look(
    args: Sequence[Any], named: dict[str, Any], live: dict[int, int], used: list[int]
) -> tuple[bool, bool]:
    """Note the live tensors among arguments, and tell whether some have values and some have not."""
    real = meta = False
    for value in (*args, *named.values()) if named else args:
        if isinstance(value, Tensor):
            if value.is_meta:
                meta = True
            else:
                real = True
            if id(value) in live:
                used.append(live[id(value)])
        elif type(value) in {list, tuple}:
            inner_real, inner_meta = _look(value, {}, live, used)
            real, meta = real or inner_real, meta or inner_meta
    return real, meta


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:  # noqa: A002
    """Return the shape of a linear layer's output: torch's own rule takes 0.25 ms and loads SymPy."""
    plain = input.is_meta and input.ndim > 0 and weight.ndim == 2 and input.dtype == weight.dtype  # noqa: PLR2004
    if not plain or input.shape[-1] != weight.shape[1]:
        return NotImplemented
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


_SHAPE_RULES: dict[Any, Callable[..., Any]] = {nn.functional.linear: _linear}
