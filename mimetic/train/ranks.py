"""Ranks: processes that train one model together (torchrun), each on its share of every batch.

All ranks draw the same order, augmentation and mixing for the whole batch and then take their share of it,
so a batch holds the same images for any number of ranks. Gradients are averaged by PyTorch's
DistributedDataParallel. Norm layers with running statistics normalize by their rank's share alone, and the
first rank's statistics are those that are kept: with batch normalization, runs on different numbers of ranks
are different experiments. The first rank alone writes journal, checkpoints and weights.

With one rank every method returns what it is given.
"""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mimetic.errors import RunError, UserError

LOST = "another process of the team failed or was lost; `mimetic run … --resume` goes on"
"""What to say of a collective operation that the other processes left."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of `size` processes.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def key(self) -> tuple[int, ...]:
        """Return what tells this rank's streams from the first one's, whose are those of a run alone."""
        return (self.rank,) if self.rank else ()

    def check(self, batch: int, device: torch.device) -> None:
        """Refuse a batch that cannot be shared equally, and one GPU for two ranks.

        Raises:
            UserError: With the repair.
        """
        if batch % self.size:
            raise UserError(
                f"train.batch_size: {batch} examples cannot be shared by {self.size} processes equally; "
                f"take {max(batch // self.size, 1) * self.size}"
            )
        if self.size > 1 and device.type == "cuda":
            places: list[str | None] = [None] * self.size
            # By its own number: where each process is shown one GPU alone, all of them are `cuda:0`.
            own = torch.cuda.get_device_properties(device).uuid
            dist.all_gather_object(places, f"{socket.gethostname()} {device} ({own})")
            refuse_shared(places)

    def share(self, tensor: Tensor) -> Tensor:
        """Return this rank's share of the first dimension."""
        return tensor if self.size == 1 else tensor.chunk(self.size)[self.rank]

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over ranks in its backward pass."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over ranks; the value stays as it is."""
        if self.size == 1:
            return value
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    def first(self, value: Tensor) -> Tensor:
        """Return a value on the first rank and zeros on the others: what was summed up before counts once."""
        return value if self.rank == 0 else torch.zeros_like(value)

    def agreed(self, reason: str | None, *, due: bool) -> tuple[str | None, bool]:
        """Return to all why one rank wants to stop, and whether the state is due on one of them.

        Both are told in one exchange, on the CPU, so that no rank waits for its GPU.
        """
        if self.size == 1:
            return reason, due
        wishes = torch.tensor([reason is not None, due], dtype=torch.uint8)
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX)
        stops, keeps = wishes.tolist()
        if stops and reason is None:
            reason = "stopped with the other processes"
        return reason, bool(keeps)

    def same_buffers(self, model: nn.Module) -> None:
        """Give all ranks the first one's running statistics."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def first_alone(self) -> Iterator[bool]:
        """Let the first rank do something; all wait, and its failure is that of all.

        Raises:
            RunError: If the first rank raised one, on every rank.
        """
        failure: RunError | None = None
        try:
            yield self.rank == 0
        except RunError as error:
            failure = error
        if self.size > 1:
            said = [None if failure is None else str(failure)]
            dist.broadcast_object_list(said, src=0)
            if failure is None and said[0] is not None:
                failure = RunError(said[0])
        if failure is not None:
            raise failure


def refuse_shared(places: Sequence[str | None]) -> None:
    """Refuse a GPU that two ranks would train on, which NCCL cannot.

    Args:
        places: The machine and GPU of each rank.

    Raises:
        UserError: With the repair.
    """
    taken = Counter(places)
    place, count = taken.most_common(1)[0]
    if count > 1:
        raise UserError(
            f"train.device: {count} processes would share {place}, and each needs a GPU of its own; start as "
            "many processes as there are GPUs, name none of them by its number (`cuda`), or take `cpu`"
        )


def is_loss(error: Exception) -> bool:
    """Tell whether an exception of a collective operation means that another process is gone."""
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))


ALONE = Ranks()
"""A process that trains by itself."""
