"""Random streams keyed by name: the determinism contract.

Every value is drawn from a generator seeded by a stable hash of (run seed, canonical parameter name, slot).
It depends neither on the order of rules and layers, nor on threads, workers, devices or shards. A draw
depends on layout, dtype and device: draw into new contiguous CPU tensors, then copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from operator import index

import torch

from mimetic.errors import UserError


def key(*parts: object) -> int:
    """Return a 63-bit integer that depends on all parts and on nothing else.

    Parts are joined with a separator that cannot occur in them, so ("ab", "c") and ("a", "bc") differ.
    """
    text = "\x1f".join(str(part) for part in ("mimetic/1", *parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def as_seed(seed: object) -> int:
    """Return a seed as Python's integer: those of numpy and torch have the same streams.

    Raises:
        UserError: If it is no whole number from 0: None, "0", 1.0 and True would have other streams.
    """
    is_bool = isinstance(seed, bool) or str(getattr(seed, "dtype", "")).endswith("bool")
    try:
        number = -1 if is_bool else index(seed)  # type: ignore[arg-type] # refused by its TypeError
    except TypeError:
        number = -1
    if number < 0:
        raise UserError(f"the seed must be a whole number from 0, found {seed!r}", code="MIM-A023")
    return number


def generator(*parts: object, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator seeded by `key` of the parts."""
    return torch.Generator(device).manual_seed(key(*parts))


@contextmanager
def keyed_global_rng(*parts: object) -> Iterator[None]:
    """Seed torch's global CPU stream by `key` of the parts inside the block, and restore it afterwards.

    For code that takes no generator, such as a layer's `reset_parameters`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(*parts))  # torch.manual_seed would reseed the GPUs for good
        yield
