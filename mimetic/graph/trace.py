"""Trace: in which order, and how often, one forward uses a network's layers.

The forward runs with shapes instead of values: every parameter and buffer is replaced by a tensor on the
meta device, so it costs no memory and no arithmetic. What is recorded is the *use* of a parameter by any
torch call, not only the call of its layer: so class tokens, the fused projections of attention and
weights read by another module have their true place.

The live model is as before afterwards (`mimetic.graph.substitute`): tensors, flags, counters, hooks and
other attributes; random streams are restored. The user's hooks do not run. What a forward does to the
world outside the model, such as printing, does happen.
"""

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mimetic.graph.names import walk
from mimetic.graph.shapes import answer
from mimetic.graph.substitute import without_values
from mimetic.streams import keyed_global_rng

_CPU = torch.device("cpu")
_DEVICE_OF = Tensor.device.__get__
_MOVES = frozenset({Tensor.to, Tensor.cpu, Tensor.cuda})


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


def trace(model: nn.Module, inputs: Iterable[tuple[Any, ...]]) -> tuple[Trace | None, str | None]:
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
    for number, (arguments, training) in enumerate(_attempts(inputs)):
        try:
            return _attempt(model, arguments, training=training), None
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            if number == 0:
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None, reason


def _attempts(inputs: Iterable[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Pair inputs with modes: all in training mode first; guesses are made only as far as needed."""
    tried = []
    for arguments in inputs:
        tried.append(arguments)
        yield arguments, True
    yield from ((arguments, False) for arguments in tried)


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
        substitutes = stack.enter_context(
            without_values(model, lambda module: recorded.record(id(module)), training=training)
        )
        stack.enter_context(_Recorder(recorded, substitutes))
        model(*(_without_values(argument) for argument in arguments))
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


def _without_values(argument: Any) -> Any:
    """Take the values out of an input; whole numbers keep theirs, in a copy: they may be lengths."""
    return _mapped(
        argument, lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor.clone()
    )


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change all tensors inside a value made of lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return change(value.detach())
    if type(value) in {list, tuple}:
        return type(value)(_mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _makes_tensors(func: Any, result: Any) -> bool:
    """Tell a use of a tensor from a look at its shape or device."""
    if isinstance(result, tuple | list):
        return any(isinstance(item, Tensor) for item in result)
    return isinstance(result, Tensor) or func is Tensor.__setitem__


class _Recorder(TorchFunctionMode):
    """Note every torch call that makes tensors from a parameter, and keep values out of it.

    Constants a forward builds on a real device lose their values when they meet a tensor without. To the
    forward all tensors seem to be on the CPU: `torch.autocast(x.device.type)` knows no meta device.
    """

    def __init__(self, recorded: Trace, live: dict[int, int]) -> None:
        super().__init__()
        self.recorded, self.live = recorded, live

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch call without values."""
        if func == _DEVICE_OF:
            return _CPU
        named = {} if kwargs is None else kwargs
        used: list[int] = []
        real, meta = _look(args, named, self.live, used)
        if real and meta:
            args, named = _mapped(args, _to_meta), _mapped(named, _to_meta)
        if meta and (named or func in _MOVES):
            func, args, named = _staying(func, args, named)
        result = answer(func, args, named)
        if result is NotImplemented:
            result = func(*args, **named)
        if used and _makes_tensors(func, result):
            for identity in used:
                self.recorded.record(identity)
        return result


def _staying(
    func: Any, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Make a call that would move a tensor without values to another device stay."""
    if func in {Tensor.cpu, Tensor.cuda}:
        return Tensor.to, (args[0], "meta"), {}
    named = {key: "meta" if key == "device" and value is not None else value for key, value in named.items()}
    if func == Tensor.to and len(args) > 1 and isinstance(args[1], str | int | torch.device):
        args = (args[0], "meta", *args[2:])
    return func, args, named


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
                meta = meta or live[id(value)] == id(value)  # the live tensor itself: keep off its values
        elif type(value) in {list, tuple}:
            inner_real, inner_meta = _look(value, {}, live, used)
            real, meta = real or inner_real, meta or inner_meta
    return real, meta
