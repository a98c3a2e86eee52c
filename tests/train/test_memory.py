"""Memory that is freed and wanted again does not come from the system anew."""

import platform
import subprocess
import sys

import pytest

from mimetic.train.memory import keep_freed_memory

ROUNDS = """
import ctypes, resource, sys
from mimetic.train.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), 8 << 20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [libc.malloc(size) for _ in range(10)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for piece in pieces:
        libc.free(piece)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""
PAGES = 10 * (8 << 20) // 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    """Ten pieces of 8 MiB are touched anew each time unless the process keeps them."""
    faults = {}
    for how in ("plain", "kept"):
        command = [sys.executable, "-c", ROUNDS, how]
        faults[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["plain"] > PAGES // 2
    assert faults["kept"] < PAGES // 10


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no glibc nothing is called."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
