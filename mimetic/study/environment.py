"""Describe what a study runs on: versions, machine, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NUMERICAL = ("mimetic", "torch", "torchvision", "timm")
"""Packages whose versions change results."""

PACKAGES = ("mimetic", "torch", "torchvision", "timm", "mlflow", "numpy", "pydantic")


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that change results."""
    return {name: found for name in NUMERICAL if (found := _version(name))}


def environment() -> dict[str, str]:
    """Return versions, machine and commit as flat strings; unknown ones are left out."""
    found = {name: _version(name) for name in PACKAGES}
    found |= {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": str(bool(_git("status", "--porcelain"))).lower(),
    }
    return {name: value for name, value in found.items() if value}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip()


GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "diff.external=")
"""git without the programs that a repository's own configuration may start."""


def _git(*arguments: str) -> str:
    """Return the output of git in the current directory, empty if it is not a repository."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [*GIT, *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
