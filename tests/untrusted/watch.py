"""Watch a process for what no input may do: start programs, connect, run its code, write elsewhere."""

import os
import sys
from pathlib import Path
from typing import Any

FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile"),
    *("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request", "webbrowser.open"),
    *("code.__new__", "ctypes.dlopen", "pickle.find_class", "marshal.loads"),
}
"""Audit events of Python that no reading of a file needs."""

CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Collects violations from the moment it is made, for the life of the process.

    Args:
        folder: The only place where files may change.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.found: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN and not _importing():
            self.found.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITING:
            self._check(event, arguments[0])
        elif event in CHANGES:
            for path in arguments[1:2] if event == "os.symlink" else arguments[:2]:
                if isinstance(path, str | bytes):
                    self._check(event, path)
        elif event == "exec" and self._inside(getattr(arguments[0], "co_filename", "")):
            self.found.append(f"exec {arguments[0]!r:.200}")

    def _check(self, event: str, path: str | bytes) -> None:
        text = os.fsdecode(path)
        if not self._inside(text) and text != os.devnull and "__pycache__" not in text:
            self.found.append(f"{event} {text}")

    def _inside(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.folder + os.sep)


def _importing() -> bool:
    """Return whether a module is being imported: libraries load what they need when they are first used."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
