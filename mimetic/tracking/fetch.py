"""Fetch a run of ours from the store: the trial it mirrors, as files.

Servers are not trusted: names become paths only after they were checked.
"""

import os
import re
from pathlib import Path
from shutil import move, rmtree
from typing import TYPE_CHECKING

from mimetic.config.base import NAME_PATTERN
from mimetic.errors import RunError, UserError
from mimetic.recipe.recipe import Recipe
from mimetic.sources.find import find_runs
from mimetic.tracking.runs import KIND, STUDY
from mimetic.tracking.store import connect, sqlite_path, store_errors, tracking_uri
from mimetic.train.checkpoint import WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FOLDER = "fetched"
"""Below the root: a folder for each run whose files came from a server."""


def with_local_runs(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with the folders of every `from: {run: ID}`, fetched where necessary.

    Workers never connect to MLflow, so this comes before planning.

    Raises:
        RecipeError: With every run that is missing, or is not a finished trial.
        RunError: If the store does not work.
    """
    return find_runs(recipe, lambda run: fetch_trial(root, run))


def fetch_trial(root: str | os.PathLike[str], run_id: str) -> Path:
    """Return the folder of the finished trial that an MLflow run mirrors.

    It is the trial's own folder where that is below the root, and else a copy of the run's recipe and
    weights at `<root>/fetched/<run id>/<arm>/seed-<n>`, laid out like a study and fetched once.

    Raises:
        UserError: If there is no such run, it is not a trial, or it did not finish.
        RunError: If the store does not work or the artifacts are gone.
    """
    # the run
    file = sqlite_path(tracking_uri(root))
    if file is not None and not file.is_file():  # `connect` would make one
        raise UserError(f"there is no run {run_id}: nothing was tracked in {file} yet", code="MIM-L010")
    uri, client = connect(root)
    with store_errors(uri):
        run = _found(client, run_id, uri)
    tags, params = run.data.tags, run.data.params
    arm, seed, study = params.get("arm", ""), params.get("seed", ""), tags.get(STUDY, "")
    if (
        tags.get(KIND) not in {"trial", "stage"}
        or not re.fullmatch(NAME_PATTERN, arm)
        or not seed.isdecimal()
    ):
        raise UserError(
            f"run {run_id} of {uri} is not a trial: choose one whose `{KIND}` is `trial` or `stage`",
            code="MIM-L011",
        )
    if run.info.status != "FINISHED":
        raise UserError(
            f"run {run_id} ({arm} · seed {seed}) is {run.info.status}; weights are stored when it finishes",
            code="MIM-L012",
        )

    # its trial below the root, or a copy of its files
    parts = study.split("/")
    if len(parts) == 2 and all(re.fullmatch(NAME_PATTERN, part) for part in parts):  # noqa: PLR2004
        own: Path = Path(root).joinpath("studies", *parts, arm, f"seed-{seed}").resolve()
        if (own / WEIGHTS).is_file():
            return own
    there: Path = (Path(root) / FOLDER / run_id / arm / f"seed-{seed}").resolve()
    if not (there / WEIGHTS).is_file():
        _download(client, uri, run_id, there)
    return there


def _found(client: "MlflowClient", run_id: str, uri: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"there is no run {run_id} in {uri}", code="MIM-L013") from None
        raise


def _download(client: "MlflowClient", uri: str, run_id: str, there: Path) -> None:
    """Download recipe and weights; the weights come last, so their presence means that all is there."""
    from mlflow.exceptions import MlflowException

    coming = there.parents[1].with_name(f".{run_id}.coming")
    rmtree(coming, ignore_errors=True)
    coming.mkdir(parents=True)
    there.mkdir(parents=True, exist_ok=True)
    try:
        for artifact, place in (("recipe/resolved.yaml", there.parents[1]), (WEIGHTS, there)):
            with store_errors(uri):
                try:
                    path = client.download_artifacts(run_id, artifact, str(coming))
                except (MlflowException, OSError) as error:
                    raise RunError(
                        f"run {run_id} of {uri} has no artifact `{artifact}` to fetch ({error}); "
                        "it may have been deleted: choose another run",
                        code="MIM-L014",
                    ) from error
            move(path, place / Path(artifact).name)
    finally:
        rmtree(coming, ignore_errors=True)
