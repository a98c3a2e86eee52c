"""Two processes train one model together: the same beginning, the same images, the same end."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mimetic.errors import UserError
from mimetic.journal import history, read_journal
from mimetic.train.distributed import SINGLE_PROCESS, DistContext, refuse_shared_gpu

TEAM = Path(__file__).with_name("team.py")
TIMED = {"images_per_second", "epoch_seconds"}


def run(folder: Path, *words: str, ranks: int) -> list[dict[str, Any]]:
    """Train in one or several processes; return what each of them told."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if ranks > 1:  # as torchrun, which takes seconds to start, sets them
        environment |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    members = [
        subprocess.Popen(
            [sys.executable, str(TEAM), str(folder), *words],
            env=environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    errors = [member.communicate()[1] for member in members]
    assert [member.returncode for member in members] == [0] * ranks, errors
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_two_processes_train_what_one_does_stop_together_and_go_on(tmp_path: Path) -> None:
    """Initial weights bit for bit, every batch's images in its order, final weights up to rounding.

    One is asked to stop in the middle of an epoch; after a resume the result is that of a straight run.
    """
    (alone,) = run(tmp_path / "one", "2", ranks=1)
    first, second = run(tmp_path / "two", "2", ranks=2)

    assert first["begun"] == second["begun"] == alone["begun"]
    together = [a + b for a, b in zip(first["seen"], second["seen"], strict=True)]
    assert len(alone["seen"]) == 8
    assert together == alone["seen"]
    assert first["metrics"]["test/acc"] == second["metrics"]["test/acc"] == alone["metrics"]["test/acc"]
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)
    curves = [history(read_journal(tmp_path / name / "journal.jsonl")) for name in ("one", "two")]
    for metric in curves[0].keys() - TIMED:
        assert curves[1][metric] == pytest.approx(curves[0][metric], rel=1e-3)

    stopped = run(tmp_path / "stopped", "2", "6", ranks=2)
    assert [told["status"] for told in stopped] == ["KILLED", "KILLED"]
    finished = run(tmp_path / "stopped", "2", ranks=2)
    assert [told["status"] for told in finished] == ["FINISHED", "FINISHED"]
    ended = load_file(tmp_path / "stopped" / "weights.safetensors")
    assert all(torch.equal(two[name], ended[name]) for name in two)
    resumed = history(read_journal(tmp_path / "stopped" / "journal.jsonl"))
    assert {m: c for m, c in curves[1].items() if m not in TIMED} == {
        m: c for m, c in resumed.items() if m not in TIMED
    }


def test_alone_changes_nothing() -> None:
    """With one process every value comes back as it is."""
    value, model = torch.arange(4), nn.Linear(2, 2)

    assert SINGLE_PROCESS.shard(value) is value
    assert SINGLE_PROCESS.all_reduce_sum(value) is value
    assert SINGLE_PROCESS.wrap_ddp(model) is model
    assert SINGLE_PROCESS.rng_key == ()
    for reason, due in ((None, False), ("asked", True)):
        assert SINGLE_PROCESS.any_rank(reason, checkpoint_due=due) == (reason, due)
    with SINGLE_PROCESS.rank0_first() as is_rank0:
        assert is_rank0


def test_shares_are_equal_or_refused() -> None:
    """Shares make up the batch in its order; a batch that does not divide names one that does."""
    value = torch.arange(6)

    assert torch.cat([DistContext(rank, 3).shard(value) for rank in range(3)]).tolist() == value.tolist()
    with pytest.raises(UserError, match="take 126") as caught:
        DistContext(0, 3).validate(128, torch.device("cpu"))
    assert caught.value.code == "MIM-T020"


def test_each_process_has_a_gpu_of_its_own() -> None:
    """NCCL refuses two on one, and says so in words of its own; two machines may number theirs alike."""
    refuse_shared_gpu(["red cuda:0", "red cuda:1", "blue cuda:0"])
    with pytest.raises(UserError, match="2 processes would share red cuda:0") as caught:
        refuse_shared_gpu(["red cuda:0", "red cuda:1", "red cuda:0"])
    assert caught.value.code == "MIM-T022"
