"""The door to torchvision, with the failure it is there for."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mimetic.errors import UserError
from mimetic.models.torchvision_import import import_timm, import_torchvision


def run_with_package(folder: Path, source: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter that finds `source` as torchvision."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(textwrap.dedent(source), encoding="utf-8")
    path = os.pathsep.join((str(folder), *filter(None, sys.path)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_what_is_installed() -> None:
    """Where torchvision loads by itself, it is just imported."""
    expected = "torchvision"

    actual = import_torchvision().__name__

    assert expected == actual


def test_timm_comes_through_the_same_door() -> None:
    """Timm is importable once torchvision is."""
    expected = "timm"

    actual = import_timm().__name__

    assert expected == actual


def test_survives_missing_operators(tmp_path: Path) -> None:
    """A torchvision whose operators are missing fails as the real one does, and then imports."""
    package = """
        import torch
        torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
        here = True
    """
    script = """
        try:
            import torchvision
        except RuntimeError as error:
            print(error)
        from mimetic.models.torchvision_import import import_torchvision
        print(import_torchvision().here, import_torchvision().here)
    """
    expected = ["operator torchvision::nms does not exist", "True True"]

    actual = run_with_package(tmp_path, package, script).stdout.splitlines()

    assert expected == actual


def test_other_failures_are_told(tmp_path: Path) -> None:
    """Any other failure to load names torch and the repair, without a second attempt."""
    script = """
        from mimetic.errors import UserError
        from mimetic.models.torchvision_import import import_torchvision
        try:
            import_torchvision()
        except UserError as error:
            print(error)
    """
    expected = "torchvision cannot be imported (undefined symbol: foo); install the release made for torch"

    actual = run_with_package(tmp_path, "raise RuntimeError('undefined symbol: foo')", script).stdout

    assert actual.startswith(expected)


def test_absent_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed is a user's mistake, not a traceback."""
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(UserError, match="timm cannot be imported"):
        import_timm()
