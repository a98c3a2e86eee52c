"""No interpreter that is started imports from the current folder."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimetic.study.executors.supervisor import send_line, start_worker

PACKAGE = Path(__file__).parents[3] / "mimetic"


@pytest.mark.slow
def test_a_worker_ignores_the_current_folder(tmp_path: Path) -> None:
    """A folder full of modules named as what a worker imports runs none of them."""
    for name in ("regex", "torch", "pydantic", "yaml", "safetensors", "mimetic", "timm", "site_hook"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    folder = Path.cwd()
    os.chdir(tmp_path)
    try:
        worker, reports = start_worker({}, tmp_path / "log")
        with worker, reports:
            send_line(worker, "end")
            assert worker.wait(timeout=120) == 0
    finally:
        os.chdir(folder)

    assert not (tmp_path / "ran").exists()


def test_every_interpreter_is_started_safely() -> None:
    """Each command that starts Python has `-P` right behind the interpreter."""
    unsafe = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                second = node.elts[1] if len(node.elts) > 1 else None
                if not (isinstance(second, ast.Constant) and second.value == "-P"):
                    unsafe.append(f"{path.name}:{node.lineno}")
    assert sys.executable
    assert unsafe == []


def test_git_starts_no_program_of_the_repository(tmp_path: Path) -> None:
    """A repository's own `core.fsmonitor` and hooks are not run when a study asks for the commit."""
    from mimetic.study.environment import environment

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    hook = tmp_path / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    subprocess.run(["git", "-C", str(tmp_path), "config", "core.fsmonitor", str(hook)], check=True)
    folder = Path.cwd()
    os.chdir(tmp_path)
    try:
        environment()
    finally:
        os.chdir(folder)

    assert not (tmp_path / "ran").exists()
