"""Training one trial: the loop, optimizers and schedules, checkpoints, the journal.

Loaded when it is first used: a coordinator that only reads journals does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimetic.train.freeze import check_frozen, digest, hold_statistics
    from mimetic.train.journal import Follower, Journal, history, last_metrics, read_journal, status
    from mimetic.train.loop import CHECKPOINT, WEIGHTS, Outcome, train

_HOME = {
    "CHECKPOINT": "loop",
    "WEIGHTS": "loop",
    "Follower": "journal",
    "Journal": "journal",
    "Outcome": "loop",
    "check_frozen": "freeze",
    "digest": "freeze",
    "history": "journal",
    "hold_statistics": "freeze",
    "last_metrics": "journal",
    "read_journal": "journal",
    "status": "journal",
    "train": "loop",
}

__all__ = [
    "CHECKPOINT",
    "WEIGHTS",
    "Follower",
    "Journal",
    "Outcome",
    "check_frozen",
    "digest",
    "history",
    "hold_statistics",
    "last_metrics",
    "read_journal",
    "status",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mimetic.train' has no attribute {name!r}")
    return getattr(import_module(f"mimetic.train.{_HOME[name]}"), name)
