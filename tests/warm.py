"""Processes that are forks of one that has imported torch and MLflow, which takes seconds.

In tests with the fixture `warm_processes`, a server starts what `subprocess` starts of this interpreter. It
forks twice, and the orphan becomes a child of the process that asked: process ids, parents, signals, exit
codes and command lines in /proc are as usual. The server imports no module of ours. What it started starts
its own processes in the same way, by a server that was forked before it ran anything.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from _posixsubprocess import fork_exec
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import F_DUPFD, fcntl
from functools import partial
from pathlib import Path
from threading import Lock
from types import FunctionType, ModuleType
from typing import Any

MODULES = (
    "torch",
    "torch._dynamo",  # which an optimizer imports
    "mlflow",
    "scipy.special",
    "safetensors.torch",
    "typer",
    "rich.progress",
    "regex",
)
AT_START = ("TORCH", "OMP_", "PYTHONHASHSEED")
"""Variables that are read at the start: with others than the server's, a process is started as usual."""
GIVEN = frozenset(f"{name}={text}" for name, text in os.environ.items())
PADDING = "-" * 4000
"""An argument of the server: room for the command lines of its forks."""
FREE = 512
"""Descriptors from here on are free, while those of a new process are put in place."""
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals to a group of processes that do not end its server; it ends with its client."""
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: orphans below this process become its children."""

_lock = Lock()


@contextmanager
def warm_server() -> Iterator[Callable[..., int]]:
    """Run a server, and yield what replaces `subprocess._fork_exec`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", __file__, str(theirs.fileno()), PADDING]
    with (
        ours,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL),
    ):
        theirs.close()
        yield partial(_start, ours)
        ours.close()


def _start(server: socket.socket, *words: Any) -> int:
    """Start a process as `_posixsubprocess.fork_exec` does, by the server if it is of this interpreter."""
    arguments, _, close_fds, kept, cwd, env, stdin, _, _, stdout, _, stderr, _, error, _, session, *_ = words
    command = [os.fsdecode(word) for word in arguments]
    variables = [f"{k}={v}" for k, v in os.environ.items()] if env is None else list(map(os.fsdecode, env))
    differs = any(variable.startswith(AT_START) for variable in set(variables) - GIVEN)
    if command[0] != sys.executable or _options(command) is None or differs or not close_fds:
        return int(fork_exec(*words))
    own = enumerate((stdin, stdout, stderr))
    fds = {number: number if fd == -1 else fd for number, fd in own} | {fd: fd for fd in kept if fd != error}
    request = json.dumps((command, os.fsdecode(cwd or Path.cwd()), variables, session, list(fds)))
    with _lock:
        _adopt_orphans(True)
        socket.send_fds(server, [request.encode()], list(fds.values()))
        pid = int(server.recv(100))
        assert server.recv(100) == b"an orphan"
        _adopt_orphans(False)
    return pid


def _options(command: Sequence[str]) -> int | None:
    """Return how many options come before `-m`, `-c` or a script; None if one of them is unknown."""
    safe = int(command[1:2] == ["-P"])
    following = command[1 + safe : 2 + safe]
    return safe if following and (following[0] in ("-m", "-c") or following[0][0] != "-") else None


def _adopt_orphans(yes: bool) -> None:
    assert ctypes.CDLL(None).prctl(SUBREAPER, int(yes), 0, 0, 0) == 0


def _main(client: socket.socket) -> None:
    """Import what takes long and serve; in each new process, run its command."""
    for name in MODULES:
        __import__(name)
    path = list(sys.path)
    gc.collect()
    gc.freeze()
    while True:
        command = _serve(client)
        server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() != 0:
            break
        server.close()
        _move(
            {0: (null := os.open(os.devnull, os.O_RDWR)), 1: null, 2: null, client.fileno(): client.fileno()}
        )
    client.close()
    atexit.register(gc.unfreeze)  # or nanobind lists what of Triton would not be freed
    subprocess._fork_exec = partial(_start, server)
    _run(command, path)


def _serve(client: socket.socket) -> list[str]:
    """Fork for each request; return in the new process, with its command."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    while True:
        request, fds, *_ = socket.recv_fds(client, 1 << 20, 32)
        if not request:
            os._exit(0)
        if (child := os.fork()) == 0:
            if (orphan := os.fork()) == 0:
                break
            client.send(str(orphan).encode())
            os._exit(0)
        for fd in fds:
            os.close(fd)
        os.waitpid(child, 0)
        client.send(b"an orphan")
    client.detach()
    command: list[str]
    command, cwd, variables, session, targets = json.loads(request)
    for number in IGNORED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if session:
        os.setsid()
    _move(dict(zip(targets, fds, strict=True)))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variable.split("=", 1) for variable in variables)
    tempfile.tempdir = None
    _show(command)
    return command


def _move(fds: dict[int, int]) -> None:
    """Give descriptors the numbers that they are the values of, and close all others."""
    for target, fd in [(target, fcntl(fd, F_DUPFD, FREE)) for target, fd in fds.items()]:
        os.dup2(fd, target)
    for entry in list(Path("/proc/self/fd").iterdir()):
        if (fd := int(entry.name)) not in fds:
            with suppress(OSError):  # that of the list
                os.close(fd)


def _show(command: Sequence[str]) -> None:
    """Make a command line that of this process in /proc."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = map(int, fields[45:47])
    line = "\0".join([*command, ""]).encode(errors="surrogateescape")[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, line, len(line))
    sys.orig_argv = list(command)


def _run(command: list[str], path: list[str]) -> None:
    """Run a module, a statement or a script as the interpreter does."""
    safe = _options(command)
    how, *words = command[1 + bool(safe) :]
    folders = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if not safe and not os.environ.get("PYTHONSAFEPATH"):
        folders.insert(0, {"-m": str(Path.cwd()), "-c": ""}.get(how, str(Path(how).parent)))
    sys.path[:] = [*folders, *path]
    hidden = {entry.stem for folder in folders for entry in Path(folder or ".").glob("*")}
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]  # it would have been found in the folder
    sys.stdout.reconfigure(
        line_buffering=os.isatty(1), write_through=bool(os.environ.get("PYTHONUNBUFFERED"))
    )
    sys.argv = words if how == "-m" else [how, *words[how == "-c" :]]
    if how == "-m":
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.modules["__main__"] = main = ModuleType("__main__")
        FunctionType(compile(words[0], "<string>", "exec"), main.__dict__)()
    else:
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
