"""Training one trial: the loop, optimizers and schedules, checkpoints, freezing."""

from mimetic.train.begin import CHECKPOINT, WEIGHTS
from mimetic.train.freeze import check_frozen, digest, hold_statistics
from mimetic.train.loop import Outcome, train

__all__ = ["CHECKPOINT", "WEIGHTS", "Outcome", "check_frozen", "digest", "hold_statistics", "train"]
