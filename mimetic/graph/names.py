"""Canonical names: names of layers and parameters without the segments that wrappers add.

`torch.compile`, DDP, FSDP and checkpoint wrappers each add a segment to every name. Rules, seeds and
checkpoints use canonical names, so a plan is the same with and without wrappers. Only whole segments are
removed (`strip('module.')` would remove letters). All rooms use this module; no other code removes segments.
"""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mimetic.config.patterns import WRAPPER_SEGMENTS
from mimetic.errors import UserError
from mimetic.graph.memory import Memory
from mimetic.graph.own import own_buffers, own_children, own_parameters

MODULE_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Classes that store the wrapped module under the ordinary name `module`."""

Walked = tuple[str, str, nn.Module]
"""Raw name, canonical name, module."""

Chain = tuple[nn.Module, "Chain"] | tuple[()]


def canonical_name(name: str) -> str:
    """Return a name without wrapper segments, for names without a model, such as a checkpoint's keys.

    `module` is removed only at the front: further inside it may be a real layer. `walk`, which sees the
    model, also keeps a real layer named `module` at the front.

    Guarantee: idempotent, and never removes part of a segment.
    """
    segments = [segment for segment in name.split(".") if segment not in WRAPPER_SEGMENTS]
    first = next((i for i, segment in enumerate(segments) if segment != "module"), len(segments))
    return ".".join(segments[first:])


def walk(model: nn.Module) -> Iterator[Walked]:
    """Yield (raw name, canonical name, module) in the order of registration, under every name.

    A module registered twice is yielded twice; a wrapper precedes the module that it wraps, under the same
    canonical name.
    """
    seen: set[int] = set()
    stack: list[tuple[str, str, nn.Module, Chain]] = [("", "", model, ())]
    while stack:
        raw, canonical, module, parents = stack.pop()
        if id(module) in seen and _is_inside(module, parents):
            continue  # registered below itself
        seen.add(id(module))
        yield raw, canonical, module
        children = own_children(module)
        if not children:
            continue
        chain: Chain = (module, parents)
        for key, child in reversed(list(children.items())):
            if child is not None:
                name = canonical if unwraps(module, key) else joined(canonical, key)
                stack.append((joined(raw, key), name, child, chain))


def unwraps(module: nn.Module, key: str) -> bool:
    """Return whether the child of this name is wrapped by the module, and so has the module's name."""
    return key in WRAPPER_SEGMENTS or (key == "module" and isinstance(module, MODULE_WRAPPERS))


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers (torch.compile, DDP, FSDP, checkpointing), or the module itself."""
    inner: nn.Module | None = module
    while inner is not None:
        module = inner
        inner = next((child for key, child in own_children(module).items() if unwraps(module, key)), None)
    return module


def joined(prefix: str, key: str) -> str:
    """Join a name and a segment; the model itself has the empty name."""
    return f"{prefix}.{key}" if prefix else key


def canonical_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module by canonical name; the wrapped module rather than its wrapper.

    Raises:
        UserError: If two different modules have one canonical name.
    """
    modules: dict[str, object] = {}
    for raw, canonical, module in walk(model):
        if not any(unwraps(module, key) for key in own_children(module)):
            _claim(modules, canonical, module, raw)
    return {name: module for name, module in modules.items() if isinstance(module, nn.Module)}


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every live parameter once, under the canonical name at its first owner.

    Raises:
        UserError: If two different parameters have one canonical name.
    """
    return {name: parameter for name, (parameter, _) in owners(walk(model)).items()}


def canonical_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return every live buffer by canonical name, under every name it has.

    Raises:
        UserError: If two different buffers have one canonical name.
    """
    owner: dict[str, object] = {}
    buffers: dict[str, Tensor] = {}
    for raw, canonical, module in walk(model):
        for key, buffer in own_buffers(module).items():
            if buffer is not None:
                _claim(owner, joined(canonical, key), buffer, joined(raw, key))
                buffers[joined(canonical, key)] = buffer
    return buffers


def owners(
    walked: Iterable[Walked], memory: Memory | None = None
) -> dict[str, tuple[nn.Parameter, tuple[str, ...]]]:
    """Return every parameter of a walk once by canonical name, with its other canonical names (ties).

    Parameters are tied if they are the same memory, whether they are one object or not.

    Raises:
        UserError: If two different parameters have one canonical name.
    """
    memory = Memory() if memory is None else memory
    owner: dict[str, object] = {}
    first: dict[int, str] = {}
    found: dict[str, tuple[nn.Parameter, tuple[str, ...]]] = {}
    for raw, canonical, module in walked:
        for key, parameter in own_parameters(module).items():
            if parameter is None:
                continue
            name = joined(canonical, key)
            known = name in owner
            _claim(owner, name, parameter, joined(raw, key))
            same = memory.identity(parameter)
            if same not in first:
                first[same] = name
                found[name] = (parameter, ())
            elif not known:
                one, aliases = found[first[same]]
                found[first[same]] = (one, (*aliases, name))
    return found


def _is_inside(module: nn.Module, parents: Chain) -> bool:
    while parents:
        if parents[0] is module:
            return True
        parents = parents[1]
    return False


def _claim(owner: dict[str, object], name: str, thing: object, raw: str) -> None:
    if owner.setdefault(name, thing) is not thing:
        raise UserError(
            f"`{raw}` has the canonical name `{name}`, as has another tensor or layer; "
            "rename one of them, or pass the wrapped model",
            code="MIM-G010",
        )
