"""Whether a model is compiled: what is asked for, or what the run's length earns back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from mimetic.journal import Journal, NullJournal, read_journal
from mimetic.train.compiling import MIN_STEPS, CompiledModel, CompileError, pick_compile

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
@pytest.mark.parametrize(("choice", "why"), [(True, "on"), (False, "off")])
def test_a_choice_is_kept(choice: bool, why: str, device: torch.device) -> None:
    """Neither device nor length matter then."""
    assert pick_compile(choice, device, steps=1) == (choice, why)
    assert pick_compile(choice, device, steps=10 * MIN_STEPS) == (choice, why)


@pytest.mark.parametrize(
    ("device", "steps", "expected"),
    [
        (CPU, 10 * MIN_STEPS, (False, "off: no gain on cpu")),
        (torch.device("mps"), 10 * MIN_STEPS, (False, "off: no gain on mps")),
        (GPU, MIN_STEPS - 1, (False, "off: 4999 steps do not amortize the compile time, 5000 would")),
        (GPU, MIN_STEPS, (True, "on: 5000 steps amortize the compile time")),
    ],
)
def test_auto_asks_whether_it_pays(device: torch.device, steps: int, expected: tuple[bool, str]) -> None:
    """Only on a GPU, and only in a long run; the journal says why."""
    assert pick_compile("auto", device, steps=steps) == expected


@pytest.fixture
def uncompilable(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return a network on a machine without a C++ compiler."""

    def fail(_inputs: Tensor) -> Tensor:
        raise BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    return nn.Identity()


def test_what_nobody_asked_to_compile_goes_on_without(uncompilable: nn.Module, tmp_path: Path) -> None:
    """One warning; the network is used as it is from then on, and nothing is told of a cost."""
    value = torch.ones(2)
    with Journal(tmp_path / "journal.jsonl") as journal:
        forward = CompiledModel(uncompilable, required=False, journal=journal)
        assert forward(value) is value
        forward.report_first_step(1.0)
        assert forward(value) is value

    (told,) = read_journal(tmp_path / "journal.jsonl")
    assert (told["event"], told["level"]) == ("note", "warning")
    assert told["text"].startswith("not compiled: torch.compile failed (")
    assert "no C++ compiler" in told["text"]


def test_what_should_be_compiled_and_cannot_says_what_to_do(uncompilable: nn.Module, tmp_path: Path) -> None:
    """No traceback of the compiler's."""
    forward = CompiledModel(uncompilable, required=True, journal=NullJournal(tmp_path))
    with pytest.raises(CompileError, match=r"no C\+\+ compiler.*; set `train.compile: false`"):
        forward(torch.ones(2))


def test_a_network_s_own_mistake_is_not_the_compiler_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is raised as it is."""

    def fail(_inputs: Tensor) -> Tensor:
        raise ValueError("its own")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(ValueError, match="its own"):
        CompiledModel(nn.Identity(), required=False, journal=NullJournal(tmp_path))(torch.ones(2))
