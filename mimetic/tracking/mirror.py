"""Look into a local store for the runs of a study, without MLflow, whose import takes seconds."""

import sqlite3
from contextlib import closing

from mimetic.tracking.runs import KIND, STUDY
from mimetic.tracking.store import sqlite_path

_FINISHED = """
SELECT kind.value, COUNT(DISTINCT runs.run_uuid) FROM runs
JOIN tags study ON study.run_uuid = runs.run_uuid AND study.key = ? AND study.value = ?
JOIN tags kind ON kind.run_uuid = runs.run_uuid AND kind.key = ?
WHERE runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active' GROUP BY kind.value
"""


def is_mirrored(uri: str, study: str, trials: int) -> bool:
    """Return whether a store has the finished runs of so many trials of a study, and its summary.

    A run is finished once all of its trial is uploaded. False if the store is a server, or cannot be read.
    """
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = dict(database.execute(_FINISHED, (STUDY, study, KIND)).fetchall())
    except sqlite3.Error:
        return False
    return found.get("trial") == trials and found.get("summary") == 1
