"""Files: read only if they are regular and of bounded size, written in full or not at all."""

import errno
import fnmatch
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from mimetic.errors import UserError
from mimetic.limits import TEXT_BYTES, Limit

_BLOCK = 1 << 20

JsonObject = dict[str, Any]
"""A JSON object, as `json.loads` returns it."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: As `open` does, and for a pipe, a socket or a device, which might never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, limit: Limit = TEXT_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: If it cannot be read, or is a pipe, a socket or a device.
        UserError: If it is larger than the limit.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit.is_exceeded_by(size):
            raise UserError(
                f"{path}: the file has {limit.describe(size)}; {limit.repair}, or remove it", code="MIM-C072"
            )
        return file.read(int(limit.value))


def file_digest(path: Path) -> str:
    """Return a digest of the content of a regular file of any size.

    Raises:
        OSError: If it cannot be read.
    """
    found = blake2b(digest_size=16)
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def expand_home(path: str) -> Path:
    """Return a path with `~` and `~name` replaced by the home folder.

    Raises:
        UserError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}; write the whole path", code="MIM-C075") from error


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is not JSON or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_value(value: object, *, not_finite: Callable[[float], object]) -> object:
    """Return a value as JSON has it: keys and paths as text, lists for tuples.

    `not_finite` replaces nan and infinities, which JSON does not have.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item, not_finite=not_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, not_finite=not_finite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return not_finite(value)
    return str(value) if isinstance(value, Path) else value


def check_contained(folder: Path) -> None:
    """Refuse a folder with a link that leads out of it, or with a pipe, a socket or a device.

    A study may come from a stranger; what it names must not be read, uploaded or overwritten elsewhere.

    Raises:
        UserError: Naming the entry.
    """
    top = folder.resolve()
    for parent, folders, files in os.walk(top):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not is_inside(path, top):
                raise UserError(
                    f"{path} is a link to {path.readlink()}, outside {folder}; put the file there or remove "
                    "it",
                    code="MIM-C073",
                )
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise UserError(f"{path} is neither a file nor a folder; remove it", code="MIM-C074")


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, leads into a folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    A reader sees the old file or the new one, also after `kill -9` or a power cut: the content is
    synced before the rename and the folder after it. The folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # files of mkstemp and of safetensors are for their owner alone
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        error.filename = str(path)  # a write to a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path, *, leave_out: str | None = None) -> None:
    """Remove the temporary files that killed writers left below a folder; links are not followed.

    Folders whose name matches the pattern `leave_out` are left alone with all that is in them.
    """
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if leave_out is None or not fnmatch.fnmatch(name, leave_out)]
        for name in fnmatch.filter(files, ".*.tmp"):
            Path(top, name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _umask() -> int:
    """Return the permissions new files lack; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
