"""What is written into a run is there, in MLflow's own columns."""

from pathlib import Path

import pytest

from mimetic.errors import RunError
from mimetic.tracking import log, runs
from mimetic.tracking.store import Store

STUDY = "20261121-021500"


def test_files_metrics_and_data_are_kept(store: Store, tmp_path: Path) -> None:
    """The summary run holds the comparison's files and figures; trials name their data."""
    (tmp_path / "comparison.md").write_text("| arm |")
    run_id = runs.create_run(store, runs.NewRun(study=STUDY, kind="summary"))

    log.log_files(store, log.artifacts_of(store, run_id), [tmp_path / "comparison.md"], folder="tables")
    for _ in range(3):  # as often as a study is synced
        log.log_metrics(store, run_id, {"mean/closed-form": 95.0, "mean/σ=1": 94.0, "low": float("nan")})
    log.log_dataset(store, run_id, name="digits", digest="abc")

    run = store.client.get_run(run_id)
    assert [item.path for item in store.client.list_artifacts(run_id, "tables")] == ["tables/comparison.md"]
    assert {k: v for k, v in run.data.metrics.items() if k != "low"} == {
        "mean/closed-form": 95.0,
        "mean/__1": 94.0,
    }
    assert {len(store.client.get_metric_history(run_id, key)) for key in run.data.metrics} == {1}
    data = run.inputs.dataset_inputs[0].dataset
    assert (data.name, data.digest) == ("digits", "abc")


def test_a_missing_file_is_a_run_error(store: Store, tmp_path: Path) -> None:
    """No traceback for a file that went away."""
    run_id = runs.create_run(store, runs.NewRun(study=STUDY, kind="summary"))

    with pytest.raises(RunError, match=r"gone\.md"):
        log.log_files(store, log.artifacts_of(store, run_id), [tmp_path / "gone.md"])
