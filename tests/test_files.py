"""What is read is a regular file of bounded size, inside the folder it belongs to."""

import errno
import os
from pathlib import Path

import pytest

from mimetic.errors import UserError
from mimetic.files import check_contained, open_regular, read_regular, write_atomically
from mimetic.limits import PARAMETERS, TEXT_BYTES


def test_regular_files(tmp_path: Path) -> None:
    """A link to a file is followed; a pipe, a device, a folder is refused at once."""
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")

    assert read_regular(tmp_path / "link") == b"text"
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/stdin"), tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|directory"):
            open_regular(path)


def test_a_full_disk_is_named_with_its_file(tmp_path: Path) -> None:
    """A write that fails names no file by itself; the old file and no other is there."""
    path = tmp_path / "comparison.json"
    path.write_text("old")

    def fail(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as refused:
        write_atomically(path, fail)
    assert refused.value.filename == str(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of terabytes takes no memory, and the message names the limit."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(UserError, match=r"1 TiB.*256 MiB.*MIMETIC_MAX_TEXT_BYTES") as refused:
        read_regular(tmp_path / "sparse")
    monkeypatch.setenv("MIMETIC_MAX_TEXT_BYTES", "much")
    with pytest.raises(UserError) as unusable:
        _ = TEXT_BYTES.value

    assert (refused.value.code, unusable.value.code) == ("MIM-C072", "MIM-C071")


def test_amounts() -> None:
    """An amount that is no number is too large; counts and bytes are written shortly."""
    assert PARAMETERS.is_exceeded_by(float("nan"))
    assert PARAMETERS.is_exceeded_by(float("inf"))
    assert not PARAMETERS.is_exceeded_by(10**10)
    shown = [PARAMETERS.describe(25_600), PARAMETERS.describe(4e18), TEXT_BYTES.describe(3.5 * 2**30)]
    assert shown == ["25,600 parameters", "4e+18 parameters", "3.5 GiB"]


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    """Links inside are allowed; one that leads out, at any depth, and what is no file is refused."""
    folder, secret = tmp_path / "study", tmp_path / "secret"
    secret.write_text("secret")
    (folder / "arm" / "seed-0").mkdir(parents=True)
    (folder / "arm" / "file").write_text("")
    (folder / "inside").symlink_to("arm/file")
    check_contained(folder)

    entries = {
        "absolute": lambda at: at.symlink_to(secret),
        "relative": lambda at: at.symlink_to("../../../secret"),
        "to a folder": lambda at: at.symlink_to(tmp_path),
        "dangling": lambda at: at.symlink_to("/nowhere"),
        "loop": lambda at: at.symlink_to(at.name),
        "pipe": os.mkfifo,
    }
    for name, make in entries.items():
        at = folder / "arm" / "seed-0" / "x"
        make(at)
        with pytest.raises(UserError, match="remove it") as refused:
            check_contained(folder)
        assert refused.value.code == ("MIM-C074" if name == "pipe" else "MIM-C073")
        at.unlink()
