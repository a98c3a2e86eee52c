"""Trace the order and number of uses of a network's layers in one forward.

The forward runs with shapes instead of values: every parameter and buffer is replaced by a tensor on the
meta device, so it costs no memory and no arithmetic. The *use* of a parameter by any torch call is recorded,
not only the call of its layer: so class tokens, fused projections of attention and weights used by another
module are in their true order.

Afterwards the live model is unchanged (`mimetic.graph.substitute`): tensors, flags, counters, hooks and other
attributes; random streams are restored. The user's hooks do not run. Side effects outside the model, such as
printing, do happen.
"""

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mimetic.ambient import fixed_settings
from mimetic.graph.names import unwrapped
from mimetic.graph.shapes import answer
from mimetic.graph.substitute import without_values
from mimetic.streams import keyed_global_rng

_CPU = torch.device("cpu")
_DEVICE_OF = Tensor.device.__get__
_DEFAULT_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""What `torch.set_default_dtype` takes."""
_MOVES = frozenset({Tensor.to, Tensor.cpu, Tensor.cuda})


ForwardArguments = tuple[object, ...] | dict[str, object]
"""Positional or keyword arguments of a forward."""


@dataclass(slots=True)
class Trace:
    """Record of one forward.

    Attributes:
        first: Position of the first use of each parameter or module, by id.
        calls: Number of calls of each module and of uses of each parameter, by id.
    """

    first: dict[int, int] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    def record(self, identity: int) -> None:
        """Record one use."""
        self.first.setdefault(identity, len(self.first))
        self.calls[identity] = self.calls.get(identity, 0) + 1


def trace(model: nn.Module, inputs: Iterable[ForwardArguments]) -> tuple[Trace | None, str | None]:
    """Run one forward without values, and record what it used.

    Inputs are tried in training mode, where auxiliary heads take part, and then in evaluation mode.

    Args:
        model: Any module on any device; unchanged afterwards.
        inputs: Positional arguments to try, in order; tensors may be on any device.

    Returns:
        The trace and None, or None and the reason why no input could be traced.
    """
    model = unwrapped(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return None, "the model is compiled by TorchScript, which runs outside Python"
    reason = "no input could be guessed for it; give an example input"
    for number, (arguments, training) in enumerate(_attempts(inputs)):
        try:
            return _attempt(model, arguments, training=training), None
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            if number == 0:
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None, reason


def _attempts(inputs: Iterable[ForwardArguments]) -> Iterator[tuple[ForwardArguments, bool]]:
    """Pair inputs with modes, all in training mode first; inputs are generated lazily."""
    tried = []
    for arguments in inputs:
        tried.append(arguments)
        yield arguments, True
    yield from ((arguments, False) for arguments in tried)


def _attempt(model: nn.Module, arguments: ForwardArguments, *, training: bool) -> Trace:
    recorded = Trace()
    with ExitStack() as stack:
        stack.enter_context(fixed_settings(_dtype(model)))
        stack.enter_context(_isolated())
        substitutes = stack.enter_context(
            without_values(model, lambda module: recorded.record(id(module)), training=training)
        )
        stack.enter_context(_Recorder(recorded, substitutes))
        if isinstance(arguments, dict):
            model(**{name: _without_values(argument) for name, argument in arguments.items()})
        else:
            model(*map(_without_values, arguments))
    return recorded


def _dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype in which a forward may create tensors: that of the first parameter, else float32."""
    dtypes = (parameter.dtype for parameter in model.parameters())
    return next((dtype for dtype in dtypes if dtype in _DEFAULT_DTYPES), torch.float32)


@contextmanager
def _isolated() -> Iterator[None]:
    """Preserve random streams, and disable gradients, warnings and compilers."""
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


def _without_values(argument: object) -> object:
    """Remove the values of an input; integers are copied with values, since they may be lengths."""
    return _mapped(
        argument, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor.clone()
    )


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to all tensors inside lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return change(value.detach())
    if type(value) in {list, tuple}:
        return type(value)(_mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _makes_tensors(func: object, result: object) -> bool:
    """Return whether a call used tensor values, and not only a shape or device."""
    if isinstance(result, tuple | list):
        return any(isinstance(item, Tensor) for item in result)
    return isinstance(result, Tensor) or func is Tensor.__setitem__


class _Recorder(TorchFunctionMode):
    """Record every torch call that computes tensors from a parameter, and run it without values.

    Constants on a real device lose their values when combined with a tensor without values. To the forward,
    all tensors seem to be on the CPU, because `torch.autocast(x.device.type)` does not support meta.
    """

    def __init__(self, recorded: Trace, live: dict[int, int]) -> None:
        super().__init__()
        self.recorded, self.live = recorded, live

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run one torch call without values."""
        if func == _DEVICE_OF:
            return _CPU
        named = {} if kwargs is None else kwargs
        used: list[int] = []
        real, meta = _collect(args, named, self.live, used)
        if real and meta:
            args, named = _mapped(args, _to_meta), _mapped(named, _to_meta)
        if meta and (named or func in _MOVES):
            func, args, named = _on_meta(func, args, named)
        result = answer(func, args, named)
        if result is NotImplemented:
            result = func(*args, **named)
        if used and _makes_tensors(func, result):
            for identity in used:
                self.recorded.record(identity)
        return result


def _on_meta(
    func: Callable[..., object], args: tuple[object, ...], named: dict[str, object]
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """Rewrite a call that would move a tensor without values to another device."""
    if func in {Tensor.cpu, Tensor.cuda}:
        return Tensor.to, (args[0], "meta"), {}
    named = {key: "meta" if key == "device" and value is not None else value for key, value in named.items()}
    if func == Tensor.to and len(args) > 1 and isinstance(args[1], str | int | torch.device):
        args = (args[0], "meta", *args[2:])
    return func, args, named


def _collect(
    args: Iterable[Any], named: dict[str, object], live: dict[int, int], used: list[int]
) -> tuple[bool, bool]:
    """Collect the live tensors among arguments; return whether some have values, and some have none."""
    real = meta = False
    for value in (*args, *named.values()) if named else args:
        if isinstance(value, Tensor):
            if value.is_meta:
                meta = True
            else:
                real = True
            if id(value) in live:
                used.append(live[id(value)])
                meta = meta or live[id(value)] == id(value)  # the live tensor itself: do not use its values
        elif type(value) in {list, tuple}:
            inner_real, inner_meta = _collect(value, {}, live, used)
            real, meta = real or inner_real, meta or inner_meta
    return real, meta
