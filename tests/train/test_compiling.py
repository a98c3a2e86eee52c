"""Whether a model is compiled: what is asked for, or what the run's length earns back."""

import pytest
import torch

from mimetic.train.compiling import LONG, pick_compile

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
