"""Upload a study that ran without a tracking store, or whose store was down, from its journals."""

from pathlib import Path

from mimetic.errors import RunError, UserError
from mimetic.files import check_contained, is_inside
from mimetic.sources.find import stage_folders
from mimetic.study.conclusion import StudyResult, conclude
from mimetic.study.display import Display
from mimetic.study.layout import Trial, is_finished, trials_of
from mimetic.study.locks import locked_study, wait_for_workers
from mimetic.study.stages import stage_trials
from mimetic.study.study_folder import accepted_recipe
from mimetic.study.tracker import StudyTrials, open_tracker


def sync(folder: Path, *, root: Path, display: Display | None = None) -> StudyResult:
    """Upload a study to the tracking store; what the store already has is not sent again.

    Missing runs are created. Trials whose process has ended and trials that never started are KILLED in the
    store, and can still be resumed.

    Raises:
        UserError: If the folder holds no study, or another process is running it.
        RunError: If the store does not work.
    """
    trials = trials_of(folder)
    check_contained(folder)
    recipe = accepted_recipe(folder)
    display = Display() if display is None else display
    with locked_study(folder):
        wait_for_workers(trials, display.message)
        folders = _own_stages(folder)
        stages = stage_trials(recipe, folders, lambda place, at, seed: Trial(str(place), at.name, seed))
        study = StudyTrials(recipe, folder, trials, stages)
        tracker = open_tracker(study, root=root, display=display)
        is_incomplete = any(not is_finished(trial) for trial in trials)
        result = conclude(study, tracker, display, interrupted=is_incomplete)
    if tracker.uploader.error is not None:
        raise RunError(f"{folder} is not fully uploaded yet: {tracker.uploader.error}", code="MIM-Y003")
    return result


def _own_stages(folder: Path) -> dict[str, Path]:
    """Return the folders of a study's stages, which are below the root that the study is in.

    Raises:
        UserError: If one is elsewhere: the study may come from a stranger.
    """
    folders = stage_folders(folder)
    stages = folder.resolve().joinpath("../../../stages").resolve()
    for name, path in folders.items():
        if not is_inside(path, stages):
            raise UserError(
                f"{folder}: the stage `{name}` is in {path}, outside {stages}; if the runs were moved, run "
                "the recipe there again",
                code="MIM-Y004",
            )
        check_contained(path)
    return folders
