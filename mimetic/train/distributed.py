"""Data-parallel training of one model in several processes (torchrun).

Every rank draws the same order, augmentation and mixing for the whole batch and takes its shard, so a batch
holds the same images on any number of ranks. PyTorch's DistributedDataParallel averages the gradients.
Norm layers with running statistics normalize by their rank's shard, and rank 0's statistics are saved:
with batch normalization, runs on different numbers of ranks are different experiments. Rank 0 alone writes
journal, checkpoints and weights.

With one process every method returns its argument unchanged.
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

PEER_LOST = "another torchrun process failed or was lost; `mimetic run … --resume` continues the study"
"""Reason of a trial whose collective operation failed because another process is gone."""


@dataclass(frozen=True, slots=True)
class DistContext:
    """One of `world_size` processes that train a model together."""

    rank: int = 0
    world_size: int = 1

    @property
    def rng_key(self) -> tuple[int, ...]:
        """Return the key that separates this rank's random streams; rank 0 has those of a single process."""
        return (self.rank,) if self.rank else ()

    def validate(self, batch_size: int, device: torch.device) -> None:
        """Refuse a batch that cannot be split evenly, and two ranks on one GPU.

        Raises:
            UserError: With the repair.
        """
        if batch_size % self.world_size:
            raise UserError(
                f"train.batch_size: {batch_size} examples cannot be shared by {self.world_size} processes "
                f"equally; take {max(batch_size // self.world_size, 1) * self.world_size}",
                code="MIM-T020",
            )
        if self.world_size > 1 and device.type == "cuda":
            places: list[str | None] = [None] * self.world_size
            # By its UUID: where each process sees one GPU alone, all of them are `cuda:0`.
            uuid = torch.cuda.get_device_properties(device).uuid
            dist.all_gather_object(places, f"{socket.gethostname()} {device} ({uuid})")
            refuse_shared_gpu(places)

    def shard(self, tensor: Tensor) -> Tensor:
        """Return this rank's part of the first dimension."""
        return tensor if self.world_size == 1 else tensor.chunk(self.world_size)[self.rank]

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over ranks in the backward pass."""
        if self.world_size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Return the sum over ranks; the argument is not changed."""
        if self.world_size == 1:
            return value
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    def rank0_only(self, value: Tensor) -> Tensor:
        """Return the value on rank 0 and zeros elsewhere: a restored sum counts once."""
        return value if self.rank == 0 else torch.zeros_like(value)

    def any_rank(self, stop_reason: str | None, *, checkpoint_due: bool) -> tuple[str | None, bool]:
        """Return whether any rank wants to stop, with a reason, and whether any wants a checkpoint.

        One exchange on the CPU: no rank waits for its GPU.
        """
        if self.world_size == 1:
            return stop_reason, checkpoint_due
        flags = torch.tensor([stop_reason is not None, checkpoint_due], dtype=torch.uint8)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        any_stop, any_due = flags.tolist()
        if any_stop and stop_reason is None:
            stop_reason = "stopped with the other processes"
        return stop_reason, bool(any_due)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy rank 0's buffers (running statistics) to all ranks."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def rank0_first(self) -> Iterator[bool]:
        """Run the block on rank 0 while the others wait; re-raise rank 0's RunError everywhere.

        Yields:
            Whether this is rank 0.

        Raises:
            RunError: If rank 0 raised one, on every rank.
        """
        failure: RunError | None = None
        try:
            yield self.rank == 0
        except RunError as error:
            failure = error
        if self.world_size > 1:
            message = [None if failure is None else str(failure)]
            dist.broadcast_object_list(message, src=0)
            if failure is None and message[0] is not None:
                failure = RunError(message[0], code="MIM-T021")
        if failure is not None:
            raise failure


def refuse_shared_gpu(places: Sequence[str | None]) -> None:
    """Refuse a GPU that two ranks would train on, which NCCL does not support.

    `places` are machine and GPU of each rank.

    Raises:
        UserError: With the repair.
    """
    place, count = Counter(places).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"train.device: {count} processes would share {place}, and each needs its own GPU; start as "
            "many processes as there are GPUs, do not number the device (`cuda`), or use `cpu`",
            code="MIM-T022",
        )


def is_peer_loss(error: BaseException) -> bool:
    """Return whether an exception of a collective operation means that another process is gone."""
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))


SINGLE_PROCESS = DistContext()
"""A process that trains alone."""
