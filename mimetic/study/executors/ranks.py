"""Which of torchrun's processes this one is, from the environment. No torch."""

import os


def world_size() -> int:
    """Return how many processes torchrun started; 0 or 1 where this one is alone."""
    return environment_number("WORLD_SIZE")


def is_worker_rank() -> bool:
    """Return whether another process is rank 0."""
    return world_size() > 1 and environment_number("RANK") > 0


def launcher() -> str:
    """Return the prefix of `mimetic` on the command line: torchrun's command, or nothing."""
    size, local_size = world_size(), environment_number("LOCAL_WORLD_SIZE")
    if size <= 1:
        return ""
    return f"torchrun --nproc-per-node {size} -m " if local_size == size else "torchrun … -m "


def environment_number(variable: str) -> int:
    """Return a number that torchrun sets in the environment; 0 without torchrun."""
    return int(os.environ.get(variable, "0"))
