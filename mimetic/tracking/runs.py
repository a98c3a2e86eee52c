"""Runs: one for each trial and one summary for each study, flat, made up front with explicit ids.

Children under a parent run would leave MLflow's chart page empty, so the study is a tag.
"""

import getpass
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mimetic.tracking.log import fitting, set_tags
from mimetic.tracking.processes import is_gone, owner_tags
from mimetic.tracking.store import Store
from mimetic.tracking.trouble import store_trouble
from mimetic.tracking.values import BATCH_LIMIT, batches, flatten

STUDY = "mimetic.study"
KIND = "mimetic.kind"
REASON = "mimetic.reason"
WHOLE = "mimetic.whole"
"""Tag a trial's run gets once all that is known before training stands in it."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Kind = Literal["trial", "stage", "summary"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where runs come from, for the columns MLflow has for it.

    Attributes:
        recipe: Path of the recipe.
        commit: Git commit of the folder it was started in.
        user: Who started it; the account's name unless given.
    """

    recipe: str | None = None
    commit: str | None = None
    user: str | None = None

    def tags(self) -> dict[str, str]:
        """Return the tags MLflow shows as source, version and user."""
        found = {
            "mlflow.source.name": self.recipe,
            "mlflow.source.type": None if self.recipe is None else "LOCAL",
            "mlflow.source.git.commit": self.commit,
            "mlflow.user": _account() if self.user is None else self.user,
        }
        return {key: value for key, value in found.items() if value}


def create_trial_run(
    store: Store,
    *,
    study: str,
    arm: str,
    seed: int,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    origin: Origin | None = None,
    note: str | None = None,
    kind: Kind = "trial",
) -> str:
    """Create the run of one trial and return its id.

    Args:
        store: The open store.
        study: Id of the study.
        arm: Name of the arm; the interface groups by this param.
        seed: The seed.
        params: Settings, flat or nested. Params are written once: nothing that may change on resume.
        tags: More tags, e.g. versions.
        origin: Recipe, commit and user.
        note: Text the run's page shows.
        kind: Whether it is a trial of an arm or of a stage; charts of the arms leave stages out.

    Raises:
        RunError: If the store does not work.
    """
    settings = {"arm": arm, "seed": str(seed)} | flatten(params)
    name = f"{arm} · seed {seed}"
    run_id = _create(store, name, kind, study, params=settings, tags=tags, origin=origin, note=note)
    with store_trouble(store.uri):
        store.client.update_run(run_id, status="SCHEDULED")  # its journal's start sets it running
    return run_id


def create_summary_run(
    store: Store,
    *,
    study: str,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    origin: Origin | None = None,
    note: str | None = None,
) -> str:
    """Create the run that holds a study's comparison and return its id.

    Raises:
        RunError: If the store does not work.
    """
    settings = flatten({} if params is None else params)
    return _create(
        store, f"summary · {study}", "summary", study, params=settings, tags=tags, origin=origin, note=note
    )


def claim(store: Store, run_id: str) -> None:
    """Mark an existing run as ours and running, when a study is resumed; finished trials stay as they are.

    Raises:
        RunError: If the store does not work.
    """
    with store_trouble(store.uri):
        run = store.client.get_run(run_id)
        if run.data.tags.get(KIND) != "summary" and run.info.status == "FINISHED":
            return
        store.client.update_run(run_id, status="RUNNING")
    set_tags(store, run_id, owner_tags())


def end_run(store: Store, run_id: str, status: Status, *, reason: str | None = None) -> None:
    """End a run as FINISHED, FAILED or KILLED, with the reason as a tag.

    Raises:
        RunError: If the store does not work.
    """
    if reason is not None:
        set_tags(store, run_id, {REASON: reason})
    with store_trouble(store.uri):
        store.client.set_terminated(run_id, status)


def find_runs(store: Store, study: str) -> tuple[dict[tuple[str, int], str], str | None]:
    """Return the runs of a study: (arm, seed) → run id, and the id of its summary if there is one.

    Raises:
        RunError: If the store does not work.
    """
    trials: dict[tuple[str, int], str] = {}
    summary = None
    with store_trouble(store.uri):
        for run in _search(store, f"tags.`{STUDY}` = '{_quoted(study)}'"):
            if run.data.tags.get(KIND) == "summary":
                summary = run.info.run_id
            elif "arm" in run.data.params:
                trials[run.data.params["arm"], int(run.data.params["seed"])] = run.info.run_id
    return trials, summary


def remove_torn(store: Store, study: str) -> None:
    """Delete runs of a study's trials that were being made when their process was killed.

    Whoever made them holds the study's lock no longer, so they are made again, and none is there twice.
    Those of a stage, which several studies may run at once, are deleted if their process is gone.

    Raises:
        RunError: If the store does not work.
    """
    with store_trouble(store.uri):
        for run in _search(store, f"tags.`{STUDY}` = '{_quoted(study)}' and tags.`{KIND}` != 'summary'"):
            tags = run.data.tags
            if WHOLE not in tags and (tags[KIND] == "trial" or is_gone(tags)):
                store.client.delete_run(run.info.run_id)


def reconcile(store: Store) -> list[str]:
    """End runs of this experiment that say RUNNING or SCHEDULED though their process on this host is gone.

    Returns:
        The names of the runs, now KILLED.

    Raises:
        RunError: If the store does not work.
    """
    with store_trouble(store.uri):
        open_still = [
            run for s in ("RUNNING", "SCHEDULED") for run in _search(store, f"attributes.status = '{s}'")
        ]
        stale = [run for run in open_still if is_gone(run.data.tags)]
    for run in stale:
        end_run(store, run.info.run_id, "KILLED", reason="its coordinator was gone; found at a later start")
    return [str(run.info.run_name) for run in stale]


def _create(
    store: Store,
    name: str,
    kind: Kind,
    study: str,
    *,
    params: Mapping[str, str],
    tags: Mapping[str, str] | None,
    origin: Origin | None,
    note: str | None,
) -> str:
    from mlflow.entities import Param

    told = {STUDY: study, KIND: kind} | owner_tags() | (Origin() if origin is None else origin).tags()
    told |= {} if note is None else {"mlflow.note.content": note}
    told |= {} if tags is None else dict(tags)
    with store_trouble(store.uri):
        run = store.client.create_run(
            store.experiment_id, start_time=int(time.time() * 1000), tags=fitting(told), run_name=name
        )
        run_id = str(run.info.run_id)
        for batch in batches(list(params.items()), BATCH_LIMIT):
            store.client.log_batch(run_id, params=[Param(*item) for item in batch])
    return run_id


def _search(store: Store, query: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = store.client.search_runs([store.experiment_id], query, max_results=500, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _quoted(text: str) -> str:
    return text.replace("'", "")


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
