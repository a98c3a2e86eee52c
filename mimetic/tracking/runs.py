"""Create, find and end runs: one for each trial and a summary for each study.

Runs are flat, because children under a parent run leave MLflow's chart page empty; the study is a tag. Runs
carry the process that owns them, so a later one can check whether it is alive.

Every function that takes a store raises RunError if the store does not work.
"""

import getpass
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mimetic.printable import plain_markdown
from mimetic.tracking.log import (
    BATCH_LIMIT,
    ArtifactAddress,
    batches,
    flatten,
    log_points,
    set_tags,
    truncate_tags,
)
from mimetic.tracking.store import NOTE, Store, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

STUDY = "mimetic.study"
KIND = "mimetic.kind"
REASON = "mimetic.reason"
CONTENT_TAG = "mimetic.content"
"""What the results of a trial depend on but its seed; see `mimetic.study.contents`."""
COMPLETE_PARAM = "arm"
"""A trial's run without it lacks something from before training: dataset, files or params."""
COLOR_TAG = "mlflow.runColor"
"""The colour of the run in MLflow's charts and tables; MLflow picks one without, for two arms the same."""
HOST_TAG = "mimetic.host"
PID_TAG = "mimetic.pid"
PROCESS_START_TAG = "mimetic.process"

ACTIVE = ("RUNNING", "SCHEDULED")
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Kind = Literal["trial", "stage", "summary", "former"]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to create.

    Attributes:
        study: Id of the study.
        kind: Whether it is a trial of an arm, a trial of a stage (the charts omit those), the study's
            summary, or one of these that has left a study which grew.
        arm: Name of the arm or stage; the UI groups by this param.
        seed: The seed of a trial.
        params: Settings, flat or nested; MLflow cannot change them on resume. Logged last, see `start_run`.
        tags: Further tags, e.g. versions.
        recipe: Path of the recipe; MLflow shows it as the source.
        commit: Git commit of the folder it was started in.
        note: Text on the run's page.
        start_time: When it started, in seconds since 1970; now unless given. MLflow cannot change it later.
    """

    study: str
    kind: Kind = "trial"
    arm: str = ""
    seed: int = 0
    params: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    recipe: str | None = None
    commit: str | None = None
    note: str | None = None
    start_time: float | None = None

    def all_tags(self) -> dict[str, str]:
        """Return the tags, with those that MLflow shows as source, version, user and note."""
        found = {
            STUDY: self.study,
            KIND: self.kind,
            "mlflow.source.name": self.recipe,
            "mlflow.source.type": None if self.recipe is None else "LOCAL",
            "mlflow.source.git.commit": self.commit,
            "mlflow.user": _account(),
            NOTE: None if self.note is None else plain_markdown(self.note),
        }
        return {key: value for key, value in found.items() if value} | owner_tags() | dict(self.tags)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that was just created and is RUNNING.

    Attributes:
        id: Its id.
        artifacts: Address of its artifacts.
        params: What marks it as complete; to be logged with its first metrics, in one call.
    """

    id: str
    artifacts: ArtifactAddress
    params: Mapping[str, str]


def start_run(store: Store, run: NewRun) -> StartedRun:
    """Create a run without the params that mark it as complete."""
    is_summary = run.kind == "summary"
    name = f"summary · {run.study}" if is_summary else _name(run.arm, run.seed)
    identity = {} if is_summary else {"seed": run.seed, COMPLETE_PARAM: run.arm}
    params = list(flatten(dict(run.params) | identity).items())
    tags = truncate_tags(run.all_tags())
    started = int((time.time() if run.start_time is None else run.start_time) * 1000)
    with store_errors(store.uri):
        created = store.client.create_run(store.experiment_id, start_time=started, tags=tags, run_name=name)
    info = created.info
    for batch in batches(params[:-BATCH_LIMIT], BATCH_LIMIT):
        log_points(store, info.run_id, [], params=dict(batch))
    return StartedRun(info.run_id, ArtifactAddress(info.artifact_uri), dict(params[-BATCH_LIMIT:]))


def create_run(store: Store, run: NewRun) -> str:
    """Create a run with its params and return its id."""
    started = start_run(store, run)
    log_points(store, started.id, [], params=started.params)
    return started.id


def _name(arm: str, seed: int) -> str:
    return f"{arm} · seed {seed}"


def claim(store: Store, run_id: str) -> None:
    """Mark an existing run as ours and running when a study is resumed; finished trials are left alone."""
    with store_errors(store.uri):
        run = store.client.get_run(run_id)
        if run.data.tags.get(KIND) != "summary" and run.info.status == "FINISHED":
            return
        store.client.update_run(run_id, status="RUNNING")
    set_tags(store, run_id, owner_tags())


def end_run(store: Store, run_id: str, status: Status, *, reason: str | None = None) -> None:
    """End a run as FINISHED, FAILED or KILLED, with the reason as a tag."""
    if reason is not None:
        set_tags(store, run_id, {REASON: reason})
    with store_errors(store.uri):
        store.client.set_terminated(run_id, status)


class FoundRuns(NamedTuple):
    """The runs of a study.

    Attributes:
        trials: (arm, seed) → id of its run.
        summary: Id of the summary if there is one.
        finished: Id of a trial's run that has finished → time of its end in milliseconds.
    """

    trials: dict[tuple[str, int], str]
    summary: str | None
    finished: dict[str, int]


def find_runs(store: Store, study: str) -> FoundRuns:
    """Return the runs of a study; a trial's that lacks something is not among them."""
    trials: dict[tuple[str, int], str] = {}
    finished: dict[str, int] = {}
    summary = None
    with store_errors(store.uri):
        for run in _search(store, f"tags.`{STUDY}` = '{_quoted(study)}'"):
            params, info = run.data.params, run.info
            if run.data.tags.get(KIND) == "summary":
                summary = info.run_id
            elif run.data.tags.get(KIND) != "former" and COMPLETE_PARAM in params:
                trials[params["arm"], int(params["seed"])] = info.run_id
                if info.status == "FINISHED" and info.end_time is not None:
                    finished[info.run_id] = info.end_time
    return FoundRuns(trials, summary, finished)


def follow_growth(
    store: Store, study: str, contents: Mapping[tuple[str, int], str], *, colors: Mapping[str, str]
) -> None:
    """Let runs leave a study that grew, or return to it, and give each the colour of its arm.

    Runs of arms and seeds that the study no longer has, and of trials with another content, become `former`;
    so does the summary then, whose metrics are those of all arms.

    Args:
        store: The store.
        study: Id of the study.
        contents: (arm, seed) → content of its trials.
        colors: Arm → its colour in our figures, `#rrggbb`; another arm may change it.
    """
    summary, has_left = None, False
    with store_errors(store.uri):
        for run in _search(store, f"tags.`{STUDY}` = '{_quoted(study)}'"):
            kind, params = run.data.tags.get(KIND), run.data.params
            if kind == "summary":
                summary = run.info.run_id
            if kind not in {"trial", "former"} or COMPLETE_PARAM not in params:
                continue
            if (color := colors.get(params["arm"])) and run.data.tags.get(COLOR_TAG) != color:
                set_tags(store, run.info.run_id, {COLOR_TAG: color})
            content = contents.get((params["arm"], int(params["seed"])))
            fits = content is not None and run.data.tags.get(CONTENT_TAG, content) == content
            if fits == (kind == "former"):
                set_tags(store, run.info.run_id, {KIND: "trial" if fits else "former"})
                has_left = has_left or not fits
    if has_left and summary is not None:
        set_tags(store, summary, {KIND: "former"})


def delete_incomplete_runs(store: Store, study: str, *, trial: tuple[str, int] | None = None) -> None:
    """Delete trial runs of a study whose creation was interrupted: none may exist twice.

    The caller holds the study's lock, so nobody is creating them. Runs of a stage, which several studies may
    share, are deleted only if their process is gone. With the arm and seed of a `trial` that the caller is
    creating, only its runs are deleted, of a stage too.
    """
    with store_errors(store.uri):
        for run in _search(store, f"tags.`{STUDY}` = '{_quoted(study)}' and tags.`{KIND}` != 'summary'"):
            tags = run.data.tags
            if trial is not None:
                is_abandoned = run.info.run_name == _name(*trial)
            else:
                is_abandoned = tags[KIND] == "trial" or (tags[KIND] == "stage" and is_gone(tags))
            if COMPLETE_PARAM not in run.data.params and is_abandoned:
                store.client.delete_run(run.info.run_id)


def reconcile(store: Store) -> list[str]:
    """End runs of this experiment that are RUNNING or SCHEDULED although their process on this host is gone.

    Returns:
        The names of the runs, now KILLED.
    """
    with store_errors(store.uri):
        active = [run for s in ACTIVE for run in _search(store, f"attributes.status = '{s}'")]
        stale = [run for run in active if is_gone(run.data.tags)]
    for run in stale:
        end_run(store, run.info.run_id, "KILLED", reason="its coordinator had ended; found at a later start")
    return [str(run.info.run_name) for run in stale]


def owner_tags(pid: int | None = None) -> dict[str, str]:
    """Return tags that identify a process of this host, ours unless given."""
    number = os.getpid() if pid is None else pid
    return {HOST_TAG: socket.gethostname(), PID_TAG: str(number), PROCESS_START_TAG: _start_time(number)}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Return whether the process that owns a run was on this host and has ended.

    The system reuses process ids; the start time identifies the process.
    """
    if tags.get(HOST_TAG) != socket.gethostname() or not tags.get(PID_TAG, "").isdigit():
        return False
    number = int(tags[PID_TAG])
    return not _is_alive(number) or (
        bool(tags.get(PROCESS_START_TAG)) and _start_time(number) != tags[PROCESS_START_TAG]
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _start_time(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty if the system has no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22; the name before it may contain spaces


def _search(store: Store, query: str) -> list["Run"]:
    found: list[Run] = []
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
