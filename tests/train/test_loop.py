"""The loop learns, is keyed by counters, resumes bit for bit, and ends in stated outcomes."""

import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mimetic import streams
from mimetic.data.config import Copying, Crop, Flip
from mimetic.data.dataset import Dataset
from mimetic.data.load import load_dataset
from mimetic.errors import UserError
from mimetic.journal import Journal, history, read_journal
from mimetic.train.checkpoint import CHECKPOINT, WEIGHTS
from mimetic.train.config import AdamW, Checkpoint, OneCycle, Sgd, Train
from mimetic.train.freeze import digest
from mimetic.train.job import Outcome, TrainJob, never
from mimetic.train.loop import train
from mimetic.train.profiling import SUMMARY

EVERYTHING = Train(
    epochs=4,
    batch_size=16,
    optimizer=AdamW(lr=0.01, weight_decay=0.05, decay="weights"),
    schedule=OneCycle(),
    label_smoothing=0.1,
    clip_norm=1.0,
    mixup=0.2,
    cutmix=1.0,
    eval_batch_size=20,
    device="cpu",
)
"""All that draws, counts or remembers, at once."""

PLAIN = Train(epochs=2, batch_size=16, optimizer=Sgd(lr=0.05), eval_batch_size=20, device="cpu")

TIMED = {"images_per_second", "epoch_seconds"}
"""Metrics that no two runs share."""


_images = runpy.run_path(str(Path(__file__).with_name("halves.py")))["images"]


def _dataset(count: int = 70) -> Dataset:
    return Dataset(
        name="halves",
        train=_images(count, 0),
        val=_images(30, 1),
        test=_images(50, 2),
        num_classes=2,
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        digest="",
    )


def _model(seed: int = 0) -> nn.Module:
    """Return a network with everything that keeps state or draws: norm statistics and dropout."""
    with streams.keyed_global_rng(seed):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(512, 2),
        )


def _train(folder: Path, spec: Train = PLAIN, **options: Any) -> tuple[Outcome, nn.Module]:
    stop = options.pop("stop", never)
    defaults: dict[str, Any] = {
        "model": _model(),
        "dataset": _dataset(),
        "seed": 3,
        "plan_hash": "plan",
        "augment": (Crop(padding=1), Flip()),
    }
    with Journal(folder / "journal.jsonl") as journal:
        job = TrainJob(spec=spec, journal=journal, folder=folder, **{**defaults, **options})
        return train(job, stop=stop), job.model


def _curves(folder: Path) -> dict[str, dict[int, float]]:
    curves = history(read_journal(folder / "journal.jsonl"))
    return {name: curve for name, curve in curves.items() if name not in TIMED}


def _last(folder: Path) -> dict[str, float]:
    """Return each metric at the last epoch that has it."""
    curves = history(read_journal(folder / "journal.jsonl"))
    return {name: curve[max(curve)] for name, curve in curves.items()}


def _bytes(model: nn.Module) -> dict[str, str]:
    return {name: digest(tensor) for name, tensor in model.state_dict().items()}


def _after(steps: int) -> Callable[[], str | None]:
    """Return a `stop` that ends a trial when it is asked for the nth time."""
    asked = iter(range(steps - 1))
    return lambda: None if next(asked, None) is not None else "somebody pressed Ctrl-C"


def test_it_learns(tmp_path: Path) -> None:
    """Two classes that are easy to tell apart are told apart, and every metric is there."""
    outcome, _ = _train(tmp_path)
    assert (outcome.status, outcome.reason) == ("FINISHED", None)
    assert _last(tmp_path)["test/acc"] == 1.0
    splits = {f"{split}/{metric}" for split in ("train", "val", "test") for metric in ("loss", "acc")}
    assert splits | {"lr"} | TIMED == set(_last(tmp_path))


def test_journal_tells_the_story(tmp_path: Path) -> None:
    """Start with its facts, evaluation before training, each epoch with its state, the weights."""
    _train(tmp_path, metadata={"arm": "a", "seed": 0})
    events = [e for e in read_journal(tmp_path / "journal.jsonl") if e["event"] != "progress"]
    told = [(event["event"], event.get("epoch")) for event in events]
    epochs = [("epoch", 1), ("checkpoint", 1), ("epoch", 2), ("checkpoint", 2)]
    assert told == [("start", None), ("epoch", 0), *epochs, ("artifact", None)]
    start = {"arm": "a", "seed": 0, "plan": "plan", "device": "cpu", "precision": "fp32"}
    assert start == {name: events[0][name] for name in start}
    assert events[0]["resumed_from_epoch"] is None
    assert {"val/loss", "val/acc", "test/loss", "test/acc"} == set(events[1]["metrics"])
    assert [event["step"] for event in events if event["event"] == "epoch"] == [0, 4, 8]


def test_weights_are_kept_and_the_checkpoint_goes(tmp_path: Path) -> None:
    """A finished trial leaves its final weights."""
    _, model = _train(tmp_path)
    kept = load_file(tmp_path / WEIGHTS)
    assert _bytes(model) == {name: digest(kept[name]) for name in model.state_dict()}
    assert not (tmp_path / CHECKPOINT).exists()


def test_same_seed_same_bytes_and_global_streams_do_not_matter(tmp_path: Path) -> None:
    """A trial depends on its seed alone, and leaves the process' own streams as they were."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    _, one = _train(tmp_path / "one", EVERYTHING)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    _, two = _train(tmp_path / "two", EVERYTHING)
    _, other = _train(tmp_path / "other", EVERYTHING, seed=4)
    assert _bytes(one) == _bytes(two)
    assert _curves(tmp_path / "one") == _curves(tmp_path / "two")
    assert _bytes(one) != _bytes(other)


@pytest.mark.parametrize(
    "asked", [1, 12, 23, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 7, 16, 30))]
)
def test_resumed_equals_straight(tmp_path: Path, asked: int) -> None:
    """Stopped anywhere (in a step or an evaluation) and resumed: the same bytes and the same metrics."""
    _, straight = _train(tmp_path / "straight", EVERYTHING)
    stopped, _ = _train(tmp_path / "resumed", EVERYTHING, stop=_after(asked))
    assert (stopped.status, stopped.reason) == ("KILLED", "somebody pressed Ctrl-C")
    finished, resumed = _train(tmp_path / "resumed", EVERYTHING)
    assert finished.status == "FINISHED"
    assert _bytes(straight) == _bytes(resumed)
    assert _curves(tmp_path / "straight") == _curves(tmp_path / "resumed")


class _Killed(BaseException):
    """Stands for SIGKILL: nothing gets a chance to save anything."""


@pytest.mark.parametrize(
    "asked", [2, 13, 26, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 12, 18))]
)
def test_killed_within_an_epoch_goes_on_within_it(tmp_path: Path, asked: int) -> None:
    """With checkpoints by the clock, what was summed up before is in the epoch's figures bit for bit."""
    spec = EVERYTHING.model_copy(update={"checkpoint": Checkpoint(every=100, minutes=1e-9)})
    left = iter(range(asked))

    def kill() -> None:
        if next(left, None) is None:
            raise _Killed

    _, straight = _train(tmp_path / "straight", spec)
    with pytest.raises(_Killed):
        _train(tmp_path / "resumed", spec, stop=kill)
    trained = [e for e in read_journal(tmp_path / "resumed" / "journal.jsonl") if e["event"] == "checkpoint"]
    finished, resumed = _train(tmp_path / "resumed", spec)
    starts = [e for e in read_journal(tmp_path / "resumed" / "journal.jsonl") if e["event"] == "start"]

    assert finished.status == "FINISHED"
    assert _bytes(straight) == _bytes(resumed)
    assert _curves(tmp_path / "straight") == _curves(tmp_path / "resumed")
    assert starts[1]["resumed_from_step"] == (trained[-1]["step"] if trained else None)


def test_a_stopped_trial_repeats_no_step(tmp_path: Path) -> None:
    """The state is kept when a trial is asked to end, not only after epochs; the pace counts both parts."""
    spec = EVERYTHING.model_copy(update={"checkpoint": Checkpoint(every=100, minutes=None)})
    _train(tmp_path, spec, stop=_after(8))
    _train(tmp_path, spec)
    events = read_journal(tmp_path / "journal.jsonl")

    assert [e["step"] for e in events if e["event"] == "checkpoint"] == [2, 16]
    assert [e["resumed_from_step"] for e in events if e["event"] == "start"] == [None, 2]
    assert 0 < _last(tmp_path)["images_per_second"] < 1e6


@pytest.mark.parametrize("keep", [True, False])
def test_resume_after_the_last_epoch_trains_nothing(tmp_path: Path, keep: bool) -> None:
    """Killed between the last epoch and the end, nothing is left to train and all is known."""
    spec = PLAIN.model_copy(update={"checkpoint": Checkpoint(keep_weights=keep)})
    finished, straight = _train(tmp_path, spec)
    again, resumed = _train(tmp_path, spec)
    assert finished == again
    assert _bytes(straight) == _bytes(resumed)
    starts = [
        e["resumed_from_epoch"] for e in read_journal(tmp_path / "journal.jsonl") if e["event"] == "start"
    ]
    assert starts == [None, 2]


def test_damaged_checkpoint_begins_again_with_a_note(tmp_path: Path) -> None:
    """A checkpoint that cannot be read costs time, not the result."""
    _, straight = _train(tmp_path / "straight")
    _train(tmp_path / "resumed", stop=_after(16))
    (tmp_path / "resumed" / CHECKPOINT).write_bytes(b"rubbish")
    _, resumed = _train(tmp_path / "resumed")
    assert _bytes(straight) == _bytes(resumed)
    starts = [e for e in read_journal(tmp_path / "resumed" / "journal.jsonl") if e["event"] == "start"]
    assert starts[1]["note"].endswith("the trial starts over")


def test_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    """Resuming under another plan is the user's mistake, before anything is trained."""
    _train(tmp_path, stop=_after(16))
    with pytest.raises(UserError) as caught:
        _train(tmp_path, plan_hash="other")
    assert caught.value.code == "MIM-T034"


def test_divergence_fails_with_its_epoch(tmp_path: Path) -> None:
    """A loss that is not finite ends the trial at its epoch, with what to do."""
    spec = Train(epochs=3, batch_size=16, optimizer=Sgd(lr=1e30), device="cpu")
    outcome, _ = _train(tmp_path, spec)
    assert outcome.status == "FAILED"
    assert outcome.reason is not None
    assert outcome.reason.startswith("train/loss is ")
    assert "after epoch 1: training diverged; lower train.optimizer.lr" in outcome.reason
    assert [e["epoch"] for e in read_journal(tmp_path / "journal.jsonl") if e["event"] == "epoch"] == [0, 1]
    assert not (tmp_path / CHECKPOINT).exists()


def test_frozen_stays_and_held_statistics_too(tmp_path: Path) -> None:
    """A frozen convolution and held norm statistics have the same bytes after training."""
    model = _model()
    model[0].requires_grad_(False)
    names = ["0.weight", "0.bias", "1.running_mean", "1.running_var"]
    frozen = {name: digest(model.state_dict()[name]) for name in names}
    outcome, _ = _train(tmp_path, EVERYTHING, model=model, frozen=frozen, frozen_norm_layers=["1"])
    assert outcome.status == "FINISHED"
    assert frozen == {name: digest(model.state_dict()[name]) for name in names}


def test_frozen_that_moved_fails(tmp_path: Path) -> None:
    """A parameter said to be frozen but trained fails the trial, by name, and its weights are not kept."""
    model = _model()
    outcome, _ = _train(tmp_path, model=model, frozen={"0.weight": digest(model[0].weight)})
    assert outcome.status == "FAILED"
    assert outcome.reason is not None
    assert "frozen parameters changed during training: 0.weight" in outcome.reason
    assert not (tmp_path / WEIGHTS).exists()


def test_small_split_is_one_batch(tmp_path: Path) -> None:
    """A training split smaller than a batch is used whole, one step an epoch."""
    outcome, _ = _train(tmp_path, dataset=_dataset(10))
    assert outcome.status == "FINISHED"
    assert [e["step"] for e in read_journal(tmp_path / "journal.jsonl") if e["event"] == "epoch"] == [0, 1, 2]


def test_a_batch_too_small_for_batch_norm_says_so(tmp_path: Path) -> None:
    """One value per channel has no variance; torch's exception is no reason a user can act on."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.BatchNorm1d(2))
    outcome, _ = _train(tmp_path, PLAIN.model_copy(update={"batch_size": 1}), model=model)
    assert outcome.status == "FAILED"
    assert "`train.batch_size`" in str(outcome.reason)


def test_evaluation_every_other_epoch_and_at_the_last(tmp_path: Path) -> None:
    """Curves of held-out splits have the epochs asked for, the first and the last."""
    _train(tmp_path, PLAIN.model_copy(update={"epochs": 5, "eval_every": 2}))
    curves = _curves(tmp_path)
    assert list(curves["val/acc"]) == [0, 2, 4, 5]
    assert list(curves["train/acc"]) == [1, 2, 3, 4, 5]


def test_bfloat16_on_a_cpu(tmp_path: Path) -> None:
    """The arithmetic of the recipe is used, and weights stay in float32."""
    _, model = _train(tmp_path, PLAIN.model_copy(update={"precision": "bf16"}))
    assert _last(tmp_path)["test/acc"] == 1.0
    assert {torch.float32} == {parameter.dtype for parameter in model.parameters()}
    assert read_journal(tmp_path / "journal.jsonl")[0]["precision"] == "bf16"


def test_missing_device_is_the_recipe_s_mistake(tmp_path: Path) -> None:
    """A GPU that is not there is named, with what to write instead."""
    count = torch.cuda.device_count()
    with pytest.raises(UserError, match=f"cuda:{count}") as caught:
        _train(tmp_path, PLAIN.model_copy(update={"device": f"cuda:{count}"}))
    assert caught.value.code == "MIM-T002"


KILLED = Path(__file__).with_name("killed.py")


def _kill_after(epoch: int, folder: Path) -> None:
    """Run the trial of `killed.py` in another process, and kill it once its journal holds an epoch."""
    with subprocess.Popen([sys.executable, str(KILLED), str(folder)]) as process:
        while process.poll() is None:
            if any(event.get("epoch", -1) >= epoch for event in read_journal(folder / "journal.jsonl")):
                process.kill()
            time.sleep(0.001)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_killed_equals_never_killed(tmp_path: Path) -> None:
    """After SIGKILL and a resume, again and again, weights and metrics are those of a straight run."""
    epochs = (1, 4, 9)
    main = runpy.run_path(str(KILLED))["main"]
    main(tmp_path / "straight")
    for epoch in epochs:
        _kill_after(epoch, tmp_path / "killed")
    main(tmp_path / "killed")
    assert _curves(tmp_path / "straight") == _curves(tmp_path / "killed")
    expected, actual = (load_file(tmp_path / name / WEIGHTS) for name in ("straight", "killed"))
    assert {n: digest(t) for n, t in expected.items()} == {n: digest(t) for n, t in actual.items()}
    starts = [e for e in read_journal(tmp_path / "killed" / "journal.jsonl") if e["event"] == "start"]
    assert len(starts) == len(epochs) + 1
    assert starts[-1]["resumed_from_epoch"] >= epochs[-1] - 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_equals_eager(tmp_path: Path) -> None:
    """A compiled model trains as the eager one does, up to rounding, and writes the same names."""
    spec = PLAIN.model_copy(update={"epochs": 1})
    _, eager = _train(tmp_path / "eager", spec)
    _, compiled = _train(tmp_path / "compiled", spec.model_copy(update={"compile": True}))
    assert list(eager.state_dict()) == list(compiled.state_dict())
    assert sorted(load_file(tmp_path / "compiled" / WEIGHTS)) == sorted(compiled.state_dict())
    expected, actual = _curves(tmp_path / "eager"), _curves(tmp_path / "compiled")
    assert actual["val/loss"][0] == expected["val/loss"][0]
    assert actual["train/loss"][1] == pytest.approx(expected["train/loss"][1], rel=0.2)


@pytest.mark.parametrize(("count", "recorded"), [(70, "3 steps"), (35, "1 step"), (31, None)])
def test_the_profiler_records_the_steps_that_are_run(
    tmp_path: Path, count: int, recorded: str | None
) -> None:
    """It plans with the loader's number of steps, in which an incomplete batch is dropped."""
    outcome, _ = _train(
        tmp_path, PLAIN.model_copy(update={"epochs": 1}), dataset=_dataset(count), profile=True
    )
    summary = tmp_path / SUMMARY
    assert outcome.status == "FINISHED"
    assert (summary.read_text().splitlines()[0] if summary.exists() else None) == recorded


def test_observing_changes_nothing_and_costs_no_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once before training and after each epoch; weights and paces are those of a loop unobserved."""
    _, plain = _train(tmp_path / "plain", EVERYTHING)
    late, seen = [0.0], []
    clock = time.perf_counter
    monkeypatch.setattr("mimetic.train.loop.time.perf_counter", lambda: clock() + late[0])

    def observe(model: nn.Module, epoch: int) -> dict[str, float]:
        seen.append((epoch, digest(next(model.parameters()))))
        late[0] += 1e6
        model.eval()
        return {"seen": float(epoch)}

    _, watched = _train(tmp_path / "watched", EVERYTHING, metrics_hook=observe)
    assert _bytes(plain) == _bytes(watched)
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3, 4]
    assert len({weights for _, weights in seen}) == 5
    curves = history(read_journal(tmp_path / "watched" / "journal.jsonl"))
    assert curves["seen"] == {epoch: float(epoch) for epoch in range(5)}
    assert max(curves["epoch_seconds"].values()) < 1e5
    assert min(curves["images_per_second"].values()) > 1e-2


def test_a_diverged_model_is_not_observed(tmp_path: Path) -> None:
    """There is nothing to measure; the loss says what happened."""
    seen: list[int] = []
    wild = PLAIN.model_copy(update={"optimizer": Sgd(lr=1e30)})
    outcome, _ = _train(tmp_path, wild, metrics_hook=lambda _, epoch: seen.append(epoch) or {})
    assert (outcome.status, seen) == ("FAILED", [0])
    assert "diverged" in str(outcome.reason)


class Answering(nn.Module):
    """Answers each token with one of its own choice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Return logits (N, L, 5)."""
        return self.table(tokens_NL)  # type: ignore[no-any-return]


def test_sequences_are_trained_on_and_each_length_has_its_metrics(tmp_path: Path) -> None:
    """Of two letters one is as good as the other: accuracy, over the tokens asked for alone, is one half."""
    strings = Copying(letters=2, lengths=(1, 3), test_lengths=(2, 5), train_size=64, val_size=8, test_size=8)
    spec = Train(epochs=5, batch_size=16, optimizer=Sgd(lr=5.0), eval_batch_size=3, device="cpu")
    with streams.keyed_global_rng(0):
        model = Answering()

    outcome, _ = _train(tmp_path, spec, model=model, dataset=load_dataset(strings), augment=())

    names = {f"{split}/{what}{end}" for split in ("val", "test") for what in ("loss", "acc") for end in ENDS}
    assert outcome.status == "FINISHED"
    metrics = _last(tmp_path)
    assert names <= set(metrics)
    assert 0.4 <= metrics["train/acc"] <= 0.6, "two letters, and nothing but chance"
    assert 0.3 <= metrics["test/acc_len5"] <= 0.7
    assert metrics["test/loss_len5"] < 0.8, "the other three tokens were never the answer"


ENDS = ("", "_len2", "_len5")
"""What follows the name of a metric: nothing, and each length tested."""
