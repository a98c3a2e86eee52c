"""Where a trial begins: at the state it left, at its final weights, or anew."""

from pathlib import Path

from mimetic.train.checkpoint import Checkpoint, UnreadableCheckpointError, load_checkpoint, load_weights

CHECKPOINT = "state.safetensors"
WEIGHTS = "weights.safetensors"


def find_state(folder: Path, *, plan_hash: str) -> tuple[Checkpoint | None, str | None]:
    """Return the state to continue from, or why the trial begins again; the result is the same.

    Final weights without a checkpoint are left by a trial that was killed just before it could say so.

    Raises:
        UserError: If the state belongs to another plan.
    """
    try:
        checkpoint = load_checkpoint(folder / CHECKPOINT, plan_hash=plan_hash)
        if checkpoint is None:
            checkpoint = load_weights(folder / WEIGHTS, plan_hash=plan_hash)
    except UnreadableCheckpointError as error:
        return None, f"{error}; the trial begins again"
    return checkpoint, None
