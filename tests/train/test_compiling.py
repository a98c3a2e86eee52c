"""Whether a model is compiled: what is asked for, or what the run's length earns back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from mimetic.journal import Journal, NullJournal, read_journal
from mimetic.train.compiling import LONG, Compiled, CompileError, pick_compile

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
@pytest.mark.parametrize(("choice", "why"), [(True, "on"), (False, "off")])
def test_a_choice_is_kept(choice: bool, why: str, device: torch.device) -> None:
    """Neither device nor length matter then."""
    assert pick_compile(choice, device, steps=1) == (choice, why)
    assert pick_compile(choice, device, steps=10 * LONG) == (choice, why)


@pytest.mark.parametrize(
    ("device", "steps", "expected"),
    [
        (CPU, 10 * LONG, (False, "off: it does not pay on a cpu")),
        (torch.device("mps"), 10 * LONG, (False, "off: it does not pay on a mps")),
        (GPU, LONG - 1, (False, "off: 4999 steps do not earn it back, 5000 would")),
        (GPU, LONG, (True, "on: 5000 steps earn it back")),
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
    """Said once, aloud; the network is used as it is from then on, and nothing is told of a cost."""
    value = torch.ones(2)
    with Journal(tmp_path / "journal.jsonl") as journal:
        forward = Compiled(uncompilable, must=False, journal=journal)
        assert forward(value) is value
        forward.tell(1.0)
        assert forward(value) is value

    (told,) = read_journal(tmp_path / "journal.jsonl")
    assert (told["event"], told["aloud"]) == ("note", True)
    assert told["text"].startswith("not compiled: torch.compile fails here (")
    assert "no C++ compiler" in told["text"]


def test_what_should_be_compiled_and_cannot_says_what_to_do(uncompilable: nn.Module, tmp_path: Path) -> None:
    """No traceback of the compiler's."""
    forward = Compiled(uncompilable, must=True, journal=NullJournal(tmp_path))
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
        Compiled(nn.Identity(), must=False, journal=NullJournal(tmp_path))(torch.ones(2))
