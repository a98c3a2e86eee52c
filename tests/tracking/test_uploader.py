"""The mirror: every line of a journal reaches its run once, whatever happens on the way."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from PIL import Image

from mimetic.errors import RunError
from mimetic.tracking import runs
from mimetic.tracking.store import Store
from mimetic.tracking.uploader import JournalUploader, StudyUploader

Write = Callable[..., None]
START = {"event": "start", "device": "cpu", "threads": 1, "precision": "fp32", "resumed_from_epoch": None}


def epoch(number: int, **metrics: Any) -> dict[str, Any]:
    """Return an epoch event."""
    values = metrics or {"test/acc": number / 10}
    return {"event": "epoch", "epoch": number, "step": 7 * number, "metrics": values}


def end(status: str = "FINISHED", reason: str | None = None) -> dict[str, Any]:
    """Return an end event."""
    return {"event": "end", "status": status, "reason": reason, "seconds": 1.0}


@pytest.fixture
def run_id(store: Store) -> str:
    """Return a run to mirror into."""
    return runs.create_run(store, runs.NewRun(study="s", arm="a", seed=0, params={}))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return the path of a journal that does not exist yet."""
    return tmp_path / "trial" / "journal.jsonl"


def create(store: Store, seed: int, started: float | None, tags: Mapping[str, str]) -> runs.StartedRun:
    """Create the run of a trial when it has started."""
    return runs.start_run(store, runs.NewRun("s", arm="a", seed=seed, tags=tags, start_time=started))


def steps(store: Store, run_id: str, metric: str = "test/acc") -> list[tuple[int, float]]:
    """Return the points of a metric as the store holds them."""
    return [(point.step, point.value) for point in store.client.get_metric_history(run_id, metric)]


@pytest.mark.parametrize("metric", ["test/acc", "test/loss"])
def test_the_best_value_is_logged_once(
    store: Store, run_id: str, journal: Path, write: Write, metric: str
) -> None:
    """When the trial has finished, at its epoch, in the metric's direction; not by a second uploader."""
    best = (2, 0.9) if metric == "test/acc" else (1, 0.1)
    values = enumerate([float("nan"), 0.1, 0.9, 0.5])
    write(journal, START, *({"event": "epoch", "epoch": e, "metrics": {metric: v}} for e, v in values))
    uploader = JournalUploader(store, run_id, journal, metric=metric)
    uploader.upload()
    assert steps(store, run_id, f"best/{metric}") == []

    write(journal, end())
    uploader.upload()
    store.client.update_run(run_id, status="RUNNING")  # killed before it was marked as finished
    JournalUploader(store, run_id, journal, metric=metric).upload()
    assert steps(store, run_id, f"best/{metric}") == [best]
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_a_whole_trial_is_mirrored(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """Metrics per epoch, facts of the start as tags, and the end with its time."""
    write(journal, epoch(0), START, {"event": "progress", "epoch": 1, "step": 1}, epoch(1), end())

    assert JournalUploader(store, run_id, journal).upload() == []

    run = store.client.get_run(run_id)
    assert steps(store, run_id) == [(0, 0.0), (1, 0.1)]
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1_240_000)
    assert (run.data.tags["mimetic.device"], run.data.tags["mimetic.precision"]) == ("cpu", "fp32")
    assert "mimetic.resumed_from_epoch" not in run.data.tags
    assert "mimetic.reason" not in run.data.tags


def test_a_copied_trial_names_its_origin(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """As a tag, beside metrics like those of any other."""
    write(journal, START, epoch(0), end(), {"event": "reused", "study": "tiny/1", "trial": "a/seed-0"})

    JournalUploader(store, run_id, journal).upload()

    run = store.client.get_run(run_id)
    assert (run.data.tags["mimetic.reused"], run.info.status) == ("tiny/1/a/seed-0", "FINISHED")


def test_a_pump_sends_only_what_is_new(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """A journal that grows is followed; one that does not exist yet is empty."""
    uploader = JournalUploader(store, run_id, journal)
    assert uploader.upload() == []
    write(journal, START, epoch(0))
    uploader.upload()
    assert store.client.get_run(run_id).info.status == "RUNNING"
    write(journal, epoch(1))
    uploader.upload()
    uploader.upload()

    assert steps(store, run_id) == [(0, 0.0), (1, 0.1)]


def test_a_torn_line_waits_for_its_end(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """A line the writer has not finished is read when it is whole; one that never is, is skipped."""
    uploader = JournalUploader(store, run_id, journal)
    write(journal, START, epoch(0))
    with journal.open("a") as file:
        file.write('{"event": "epoch", "time": 5, "epoch": 1, "step": 7, "metr')
    uploader.upload()
    assert steps(store, run_id) == [(0, 0.0)]
    with journal.open("a") as file:
        file.write("\n")
    write(journal, epoch(2))
    uploader.upload()

    assert steps(store, run_id) == [(0, 0.0), (2, 0.2)]


def test_repeated_epochs_are_logged_once(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """A resumed trial repeats the epochs after its checkpoint; MLflow would append them."""
    write(journal, START, epoch(0), epoch(1), epoch(2))
    JournalUploader(store, run_id, journal).upload()
    write(journal, START | {"resumed_from_epoch": 1}, epoch(2), epoch(3), end())

    JournalUploader(
        store, run_id, journal
    ).upload()  # another coordinator: it only knows what the store knows

    assert steps(store, run_id) == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_killed_trial_that_is_resumed_ends_finished(
    store: Store, run_id: str, journal: Path, write: Write
) -> None:
    """The status follows the journal, and the old reason goes."""
    write(journal, START, epoch(0), end("KILLED", "stopped by SIGTERM"))
    JournalUploader(store, run_id, journal).upload()
    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["mimetic.reason"]) == ("KILLED", "stopped by SIGTERM")

    runs.claim(store, run_id)
    uploader = JournalUploader(store, run_id, journal)
    write(journal, START)
    uploader.upload()
    assert store.client.get_run(run_id).info.status == "RUNNING"
    write(journal, epoch(1), end())
    uploader.upload()

    run = store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["mimetic.reason"]) == ("FINISHED", "")


def test_a_mirrored_trial_costs_nothing_again(
    store: Store, run_id: str, journal: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that is resumed uploader its finished trials without uploading their weights again."""
    write(journal, START, epoch(0), {"event": "artifact", "file": "w.bin", "kind": "weights"}, end())
    (journal.parent / "w.bin").write_bytes(b"1")
    JournalUploader(store, run_id, journal).upload()
    monkeypatch.setattr("mimetic.tracking.uploader.log_files", lambda *_, **__: pytest.fail("uploaded again"))
    monkeypatch.setattr(store.client, "get_metric_history", lambda *_: pytest.fail("read in full"))

    assert JournalUploader(store, run_id, journal, ended=1_180_000).upload() == []

    failing = Failing(store.client)
    broken = Store(store.uri, failing, store.experiment_id, store.experiment)  # type: ignore[arg-type]
    found = JournalUploader(broken, run_id, journal, ended=1_180_000)
    assert found.upload() == []
    found.end("stopped")
    assert failing.calls == 0
    write(journal, START, epoch(1), end())
    monkeypatch.undo()
    JournalUploader(store, run_id, journal, ended=1_180_000).upload()
    assert steps(store, run_id) == [(0, 0.0), (1, 0.1)]


def test_many_points_are_sent_in_batches(
    store: Store, run_id: str, journal: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes a thousand points and tags a call; tags go with the first."""
    sizes = []
    send = store.client.log_batch
    monkeypatch.setattr(
        store.client,
        "log_batch",
        lambda run, *, metrics, tags, **params: (
            sizes.append((len(metrics), len(tags))),
            send(run, metrics=metrics, tags=tags, **params),
        ),
    )
    write(journal, START, *(epoch(number, **{f"m{i}": 1.0 for i in range(30)}) for number in range(40)))

    JournalUploader(store, run_id, journal).upload()

    assert sizes == [(900, 2), (300, 0)]  # whole epochs, so that one is there in full or not at all
    assert len(steps(store, run_id, "m29")) == 40


def test_numbers_that_are_not_finite_pass(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """Journals write them as strings."""
    write(journal, epoch(0, **{"train/loss": "nan"}), epoch(1, **{"train/loss": "inf"}))

    JournalUploader(store, run_id, journal).upload()

    values = [value for _, value in steps(store, run_id, "train/loss")]
    assert values[0] != values[0]
    assert values[1] > 1e300


def test_pictures_get_a_step_slider_once(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """A picture of the start is of epoch 0, one of the end of the last; resuming adds none."""
    pictures = journal.parent / "pictures"
    pictures.mkdir(parents=True)
    for moment in ("start", "end"):
        Image.new("RGBA", (20, 10), "red").save(pictures / f"filters-{moment}.png")
    first = {"event": "artifact", "file": "pictures/filters-start.png", "kind": "picture"}
    last = {"event": "artifact", "file": "pictures/filters-end.png", "kind": "picture"}
    write(journal, first, START, epoch(0), epoch(1), end("KILLED", "stopped"))
    JournalUploader(store, run_id, journal).upload()
    write(journal, first, START, epoch(2), last, end())
    JournalUploader(store, run_id, journal).upload()

    plain = [item.path for item in store.client.list_artifacts(run_id, "pictures")]
    images = [
        item.path for item in store.client.list_artifacts(run_id, "images") if item.path.endswith("png")
    ]
    assert plain == ["pictures/filters-end.png", "pictures/filters-start.png"]
    assert sorted(path.partition("+timestamp")[0] for path in images) == [
        "images/pictures~filters+step+0",
        "images/pictures~filters+step+2",
    ]


def test_a_missing_artifact_is_noted(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """The rest is mirrored, and the note names the file."""
    write(journal, START, {"event": "artifact", "file": "weights.safetensors", "kind": "weights"}, end())

    notes = JournalUploader(store, run_id, journal).upload()

    file = journal.parent / "weights.safetensors"
    assert notes == [f"{file} is in the journal, but no such file or directory: not uploaded"]
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_a_broken_picture_holds_nothing_up(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """It is uploaded as a plain file, and said."""
    write(journal, START, {"event": "artifact", "file": "filters-end.png", "kind": "picture"}, end())
    (journal.parent / "filters-end.png").write_bytes(b"no png")

    notes = JournalUploader(store, run_id, journal).upload()

    assert notes == [f"{journal.parent}/filters-end.png is not a picture: uploaded as a plain file"]
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_lines_that_lack_something_are_skipped(
    store: Store, run_id: str, journal: Path, write: Write
) -> None:
    """A journal somebody edited is no reason to stop a study."""
    write(journal, epoch(0), {"event": "epoch"}, {"event": "epoch", "epoch": 1, "metrics": {"a": "x"}})
    with journal.open("a") as file:
        file.write('[]\n7\n"end"\n{"event": []}\nno json\n')
    write(journal, {"event": "end"}, {"event": "artifact"}, epoch(2))

    assert JournalUploader(store, run_id, journal).upload() == []
    assert steps(store, run_id) == [(0, 0.0), (2, 0.2)]


def test_what_fails_for_one_trial_holds_up_no_other(
    store: Store, run_id: str, journal: Path, write: Write
) -> None:
    """The failing mirror goes to the end of the round."""
    uploader = StudyUploader(interval=0.0, backoff=0.0)
    uploader.add(store, "no-such-run", journal)
    uploader.add(store, run_id, journal)
    write(journal, epoch(0))

    uploader.upload()
    uploader.upload()

    assert steps(store, run_id) == [(0, 0.0)]


class Failing:
    """A client that fails until it is mended."""

    def __init__(self, client: Any) -> None:
        self.client, self.broken, self.calls = client, True, 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        if self.broken:
            raise ConnectionError("the server is away")
        return getattr(self.client, name)


def refuse(*_: object, **__: object) -> None:
    """Fail as a server does that is away."""
    raise ConnectionError("the server is away")


def test_a_store_that_goes_away_loses_nothing(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """The trouble is told once, the store is left alone for a while, and then everything arrives."""
    clock = [0.0]
    failing = Failing(store.client)
    broken = Store(store.uri, failing, store.experiment_id, store.experiment)  # type: ignore[arg-type]
    uploader = StudyUploader(backoff=15.0, clock=lambda: clock[0])
    uploader.add(broken, run_id, journal)
    write(journal, START, epoch(0))

    told = uploader.upload()
    assert len(told) == 1
    assert "the server is away" in told[0]
    assert told[0].endswith("the journals keep the backlog")
    clock[0] = 10.0
    asked = failing.calls
    assert (uploader.upload(), failing.calls) == ([], asked)
    clock[0] = 16.0
    assert uploader.upload() == []
    write(journal, epoch(1), end())
    failing.broken = False
    clock[0] = 60.0

    assert uploader.upload() == ["tracking store reachable again; backlog uploaded"]
    assert steps(store, run_id) == [(0, 0.0), (1, 0.1)]
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_a_failure_on_the_way_repeats_nothing(
    store: Store, run_id: str, journal: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics arrived, then the upload failed: the next pump uploads and logs no point twice."""
    uploader = StudyUploader(interval=0.0, backoff=0.0)
    uploader.add(store, run_id, journal)
    write(journal, START, epoch(0), {"event": "artifact", "file": "journal.jsonl", "kind": "other"}, end())
    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository, "log_artifact", refuse)
        assert len(uploader.upload()) == 1

    assert uploader.upload() == ["tracking store reachable again; backlog uploaded"]
    assert steps(store, run_id) == [(0, 0.0)]
    assert [item.path for item in store.client.list_artifacts(run_id)] == ["journal.jsonl"]


def test_rounds_are_spaced(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """The coordinator ticks a few times a second; the store is asked once a second, and at the end."""
    clock = [0.0]
    uploader = StudyUploader(interval=1.0, clock=lambda: clock[0])
    uploader.add(store, run_id, journal)
    uploader.upload()
    write(journal, epoch(0))
    clock[0] = 0.5
    uploader.upload()
    assert steps(store, run_id) == []

    uploader.upload(now=True)

    assert steps(store, run_id) == [(0, 0.0)]


@pytest.mark.parametrize("seconds", [(0.001, 1.0), (0.05, 10.0), (2.0, 30.0)])
def test_rounds_take_a_small_share_of_the_time(
    store: Store, run_id: str, journal: Path, write: Write, seconds: tuple[float, float]
) -> None:
    """After a round of 50 ms the store is left alone for 10 s; at least for one, at most for thirty."""
    clock, (took, pause) = [0.0], seconds

    class Slow(Failing):
        """A client one of whose calls takes a while."""

        def log_batch(self, *arguments: Any, **options: Any) -> Any:
            clock[0] += took
            return self.client.log_batch(*arguments, **options)

    slow = Slow(store.client)
    slow.broken = False
    uploader = StudyUploader(clock=lambda: clock[0])
    uploader.add(Store(store.uri, slow, store.experiment_id, store.experiment), run_id, journal)  # type: ignore[arg-type]
    write(journal, START)
    uploader.upload()
    write(journal, epoch(0))

    clock[0] = took + 0.99 * pause
    uploader.upload()
    assert steps(store, run_id) == []
    clock[0] = took + 1.01 * pause
    uploader.upload()
    assert steps(store, run_id) == [(0, 0.0)]


def test_a_trial_that_has_ended_takes_three_calls(store: Store, journal: Path, write: Write) -> None:
    """Each takes the processor for milliseconds; a new run holds nothing, so nothing is read."""
    write(journal, START, epoch(0), {"event": "artifact", "file": "w.bin"}, epoch(1), end())
    (journal.parent / "w.bin").write_bytes(b"1")
    counting = Failing(store.client)
    counting.broken = False
    counted = Store(store.uri, counting, store.experiment_id, store.experiment)  # type: ignore[arg-type]
    uploader = JournalUploader(counted, partial(create, counted, 0), journal, metric="test/acc")

    uploader.upload()
    uploader.end("stopped")

    assert counting.calls == 3
    run = store.client.get_run(uploader.run_id)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1_240_000)
    assert run.data.tags["mimetic.device"] == "cpu"
    assert run.data.params == {"arm": "a", "seed": "0"}
    assert steps(store, uploader.run_id) == [(0, 0.0), (1, 0.1)]
    assert steps(store, uploader.run_id, "best/test/acc") == [(1, 0.1)]


def test_a_run_is_complete_once_its_params_are_logged(
    store: Store, journal: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are logged last, with the first metrics, and again where that failed."""
    write(journal, START, epoch(0), end())
    uploader = JournalUploader(store, partial(create, store, 0), journal)
    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_batch", refuse)
        with pytest.raises(RunError):
            uploader.upload()
    assert runs.find_runs(store, "s")[:2] == ({}, None)

    uploader.upload()

    assert runs.find_runs(store, "s")[:2] == ({("a", 0): uploader.run_id}, None)
    assert steps(store, uploader.run_id) == [(0, 0.0)]


def test_a_run_has_the_times_of_its_trial(store: Store, journal: Path, write: Write) -> None:
    """Its run is created when the journal has its start; a trial that never started has a run at the end."""
    uploaders = [
        JournalUploader(store, partial(create, store, seed), path)
        for seed, path in enumerate((journal, journal.parent / "none.jsonl"))
    ]
    for uploader in uploaders:
        assert uploader.upload() == []
    assert runs.find_runs(store, "s")[:2] == ({}, None)

    write(journal, START, epoch(0), end())
    uploaders[0].upload()
    uploaders[1].end("stopped")

    infos = [store.client.get_run(uploader.run_id).info for uploader in uploaders]
    assert (infos[0].start_time, infos[0].end_time) == (1_000_000, 1_120_000)
    assert [info.status for info in infos] == ["FINISHED", "KILLED"]
    assert set(runs.find_runs(store, "s")[0]) == {("a", 0), ("a", 1)}
    assert store.client.get_run(uploaders[1].run_id).data.tags["mimetic.reason"] == "stopped"


def test_finishing_ends_what_never_started(store: Store, run_id: str, journal: Path, write: Write) -> None:
    """Ctrl-C before a trial began leaves no journal; its run is KILLED, others keep their end."""
    other = runs.create_run(store, runs.NewRun(study="s", arm="a", seed=1, params={}))
    write(journal, START, epoch(0), end("FAILED", "diverged"))
    uploader = StudyUploader()
    uploader.add(store, run_id, journal)
    uploader.add(store, other, journal.parent / "none.jsonl")

    assert uploader.finish("the study was stopped") == []

    ends = [store.client.get_run(each) for each in (run_id, other)]
    assert [run.info.status for run in ends] == ["FAILED", "KILLED"]
    assert [run.data.tags["mimetic.reason"] for run in ends] == ["diverged", "the study was stopped"]
