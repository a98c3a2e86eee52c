"""Which process a run belongs to, so that a later one can tell whether it still lives."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

HOST = "mimetic.host"
PID = "mimetic.pid"
BORN = "mimetic.process"


def owner_tags(pid: int | None = None) -> dict[str, str]:
    """Return tags that name a process of this host, ours unless given."""
    number = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PID: str(number), BORN: _born(number)}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Tell whether the process some tags name is of this host and does not live any more.

    Numbers are given to new processes again: one born at another time is another one.
    """
    if tags.get(HOST) != socket.gethostname() or not tags.get(PID, "").isdigit():
        return False
    number = int(tags[PID])
    return not _lives(number) or (bool(tags.get(BORN)) and _born(number) != tags[BORN])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _born(pid: int) -> str:
    """Return when a process began, in the kernel's ticks since boot; empty where that is not told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22; the name before may hold spaces
