"""Files are written whole, and with the permissions that the user asked for."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mimetic.files import write_atomically
from mimetic.journal import Journal


def _write_journal(path: Path) -> None:
    with Journal(path) as journal:
        journal.write("start")


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_atomically(path, lambda file: file.write_text("x", encoding="utf-8")),
    "torch": lambda path: write_atomically(path, lambda file: torch.save({"x": torch.ones(2)}, file)),
    "safetensors": lambda path: write_atomically(path, lambda file: save_file({"x": torch.ones(2)}, file)),
    "journal": _write_journal,
}


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the permissions that new files lack."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("writer", WRITERS)
def test_permissions_are_those_of_the_umask(writer: str, umask: int, tmp_path: Path) -> None:
    """Also where a library replaces the file by one of its own, as safetensors does."""
    path = tmp_path / "folder" / "file"

    WRITERS[writer](path)
    mode = path.stat().st_mode

    assert mode & 0o777 == 0o666 & ~umask
    assert [file.name for file in path.parent.iterdir()] == ["file"]
