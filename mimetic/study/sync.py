"""Mirror a study that ran without a tracking store, or beside one that was away, from its journals."""

from pathlib import Path

from mimetic.errors import RunError
from mimetic.recipe.load import load
from mimetic.study.display import Display, NullDisplay
from mimetic.study.layout import Trial, is_finished, read_record
from mimetic.study.locks import holding_study, wait_for_workers
from mimetic.study.stages import read_folders, stage_trials
from mimetic.study.study import StudyResult, conclude
from mimetic.study.tracker import Tracker


def sync(folder: Path, *, root: Path, display: Display | None = None) -> StudyResult:
    """Copy a study into the tracking store; what the store has already is not sent again.

    Runs that are missing are made. A trial whose process is gone ends as KILLED there, and can still be
    resumed; one that never started too.

    Args:
        folder: Folder of the study.
        root: Folder of the runs, where the store is unless $MLFLOW_TRACKING_URI says otherwise.
        display: Shows what happens.

    Raises:
        UserError: If the folder holds no study, or another process is running it.
        RunError: If the store does not work.
    """
    record = read_record(folder)
    recipe = load(folder / "resolved.yaml")
    shown = NullDisplay() if display is None else display
    trials = [Trial(str(folder), arm, seed) for seed in record["seeds"] for arm in record["arms"]]
    with holding_study(folder):
        wait_for_workers(trials, shown.say)
        stages = stage_trials(recipe, read_folders(folder), lambda at, name, seed: Trial(str(at), name, seed))
        tracker = Tracker(recipe, folder, trials, root=root, display=shown, stages=stages)
        waiting = any(not is_finished(trial) for trial in trials)
        result = conclude(recipe, folder, trials, tracker, interrupted=waiting)
    if tracker.mirrors.trouble is not None:
        raise RunError(f"{folder} is not mirrored yet: {tracker.mirrors.trouble}")
    return result
