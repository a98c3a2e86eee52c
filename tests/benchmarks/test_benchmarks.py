"""The list of measurements, their options, the page made from their results, and the MPS daemon."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import gpu, page
from benchmarks.measurement import Column, Measurement, Result, Table

ENTRIES = list(command.MEASUREMENTS.values())


def test_the_list_names_every_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without arguments every measurement is shown on a line, with its duration and what it measures."""
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(command.MEASUREMENTS)
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_tiny_sizes_are_options(entry: Measurement) -> None:
    """What `--dry` changes exists, and has a description as every measurement has."""
    assert entry.options(**entry.dry) != entry.options()
    assert entry.description
    assert entry.takes


def test_parts_of_the_gpu_set_are_valid() -> None:
    """Every part can be parsed for a GPU, and together they stay below eight minutes."""
    for part in gpu.PARTS:
        arguments = command._parser().parse_args([part.name, "--device", "cuda", *part.options])
        assert arguments.name == part.name
        assert command._parser().parse_args([part.name, "--dry", *part.dry]).dry
    assert sum(part.seconds for part in gpu.PARTS) <= 480


def test_performance_page_is_current() -> None:
    """docs/performance.md equals what template and results give."""
    assert page.page() == page.PAGE.read_text(encoding="utf-8")


def test_every_result_is_shown() -> None:
    """No result lies beside the page unseen."""
    shown = page.MARKER.findall(page.TEMPLATE.read_text(encoding="utf-8"))
    found = [path.relative_to(page.RESULTS).with_suffix("") for path in page.RESULTS.rglob("*.json")]
    assert {str(name) for name in found} <= set(shown)


def test_results_survive_their_file(tmp_path: Path) -> None:
    """A result that was written and read prints the same table."""
    columns = (Column("what"), Column("share", ".1%"), Column("range", ".2f"))
    result = Result((Table(columns, [("a", 0.125, (1.0, 2.0)), ("b", None, (3.0, 4.0))]),), ("A note.",))
    result.write(tmp_path / "result.json")
    read = Result.read(tmp_path / "result.json")
    assert read.markdown() == result.markdown()
    assert "| a | 12.5% | 1.00 – 2.00 |\n| b | – | 3.00 – 4.00 |" in read.markdown()
    assert replace(read, failures=("Too slow.",)).markdown().endswith("A note.\n\nToo slow.")


@pytest.fixture
def mps_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a daemon on the path that writes down what it gets."""
    log, program = tmp_path / "log", tmp_path / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\n[ "$1" = -d ] && echo start >> {log} || cat >> {log}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return log


def test_mps_is_stopped_and_its_folder_forgotten(mps_log: Path, tmp_path: Path) -> None:
    """The daemon runs inside the block alone, also where the block fails."""

    def fail() -> None:
        with gpu._mps(tmp_path, on=True):
            assert mps_log.read_text().split() == ["start"]
            raise KeyError(os.environ["CUDA_MPS_PIPE_DIRECTORY"])

    with pytest.raises(KeyError, match=str(tmp_path)):
        fail()
    assert mps_log.read_text().split() == ["start", "quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
