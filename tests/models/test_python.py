"""Models from the user's own code."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import PythonModel

SOURCE = """
import torch

def sized(in_channels, num_classes, width=3):
    return torch.nn.Sequential(torch.nn.Conv2d(in_channels, width, 1), torch.nn.Linear(width, num_classes))

def plain(width):
    return torch.nn.Linear(width, 2)

def number():
    return 4

def broken():
    raise KeyError("no such thing")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module into the working directory and return its name."""
    (tmp_path / "users_networks.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "users_networks", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return "users_networks"


def made(call: str, **args: object) -> nn.Module:
    """Build a model for grey images of five classes, with leave to run code."""
    return build(PythonModel(call=call, args=args), in_channels=1, num_classes=5, seed=0, allow_code=True)


def test_needs_leave(module: str) -> None:
    """Without leave nothing is imported, and the message says what would run."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M030"):
        build(PythonModel(call=f"{module}:plain"), in_channels=1, num_classes=5, seed=0)
    assert module not in sys.modules


def test_factory_gets_sizes_and_arguments(module: str) -> None:
    """Channels and classes reach a factory that asks for them, `args` reach every factory."""
    model = made(f"{module}:sized", width=7)

    assert tuple(model[0].weight.shape) == (7, 1, 1, 1)
    assert tuple(model[1].weight.shape) == (5, 7)
    assert tuple(made(f"{module}:plain", width=4).weight.shape) == (2, 4)


def test_same_seed_same_bits(module: str) -> None:
    """The factory's own draws are keyed by the seed."""
    weights = [made(f"{module}:plain", width=4).weight for _ in range(2)]

    assert torch.equal(*weights)


def test_search_path_is_restored(module: str) -> None:
    """The working directory is importable only while the factory runs."""
    expected = list(sys.path)

    made(f"{module}:plain", width=1)

    assert expected == sys.path


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("plane", "MIM-M034"),
        ("number", "MIM-M032"),
        ("broken", "MIM-M031"),
        ("plain", "MIM-M031"),
    ],
)
def test_mistakes(module: str, function: str, code: str) -> None:
    """Whatever the user's code does wrong is told, not traced."""
    with pytest.raises(UserError, check=lambda error: error.code == code):
        made(f"{module}:{function}")


def test_missing_module() -> None:
    """A module that does not exist is told."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M033"):
        made("no_such_module:f")
