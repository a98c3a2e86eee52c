"""Training one trial: the loop, optimizers and schedules, checkpoints, freezing."""

from mimetic.train.freeze import check_frozen, digest, hold_statistics
from mimetic.train.loop import CHECKPOINT, WEIGHTS, Outcome, train

__all__ = ["CHECKPOINT", "WEIGHTS", "Outcome", "check_frozen", "digest", "hold_statistics", "train"]
