"""The recurrences of state space models against a plain loop."""

import pytest
import torch
from torch import Tensor

from mimetic.models.scan import chunked_scan, scan
from mimetic.streams import generator


def _plain(decay_LX: Tensor, input_LX: Tensor) -> Tensor:
    states = [input_LX[0]]
    for decay, value in zip(decay_LX[1:], input_LX[1:], strict=True):
        states.append(decay * states[-1] + value)
    return torch.stack(states)


def test_scan_and_its_gradients_are_those_of_the_loop() -> None:
    """States and both gradients agree, for a sequence of any length."""
    draws = generator("scan")
    for length in (1, 2, 9):
        decay = torch.rand(length, 3, 4, generator=draws, dtype=torch.float64)
        values = torch.randn(length, 3, 4, generator=draws, dtype=torch.float64)
        weights = torch.randn(length, 3, 4, generator=draws, dtype=torch.float64)
        found = []
        for way in (_plain, scan):
            one, other = decay.clone().requires_grad_(), values.clone().requires_grad_()
            states = way(one, other)
            (states * weights).sum().backward()
            found.append((states.detach(), torch.zeros(()) if length == 1 else one.grad, other.grad))
        for expected, actual in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("length", "chunk"), [(1, 64), (7, 64), (8, 4), (11, 4)])
def test_chunks_give_the_recurrence(length: int, chunk: int) -> None:
    """yₜ = cₜᵀ Hₜ, Hₜ = exp(lₜ) Hₜ₋₁ + bₜ xₜᵀ, whatever the chunks; shared b and c are every head's."""
    draws = generator("chunks")
    x_NLHP = torch.randn(2, length, 3, 5, generator=draws, dtype=torch.float64)
    log_decay_NLH = -torch.rand(2, length, 3, generator=draws, dtype=torch.float64)
    write_NLS, read_NLS = torch.randn(2, 2, length, 1, 4, generator=draws, dtype=torch.float64)
    state_NHSP, outputs = torch.zeros(2, 3, 4, 5, dtype=torch.float64), []
    for t in range(length):
        written = write_NLS[:, t, :, :, None] * x_NLHP[:, t, :, None, :]
        state_NHSP = log_decay_NLH[:, t, :, None, None].exp() * state_NHSP + written
        outputs.append((read_NLS[:, t, :, None, :] @ state_NHSP).squeeze(2))
    expected = torch.stack(outputs, 1)

    actual = chunked_scan(x_NLHP, log_decay_NLH, write_NLS, read_NLS, chunk)

    torch.testing.assert_close(actual, expected)


def test_strong_decay_stays_finite() -> None:
    """A decay that empties the state at each token leaves no overflow, neither in values nor in gradients."""
    log_decay = torch.full((1, 70, 2), -200.0, requires_grad=True)
    ones = torch.ones(1, 70, 1, 3)

    chunked = chunked_scan(torch.ones(1, 70, 2, 4), log_decay, ones, ones)
    chunked.sum().backward()

    assert bool((chunked == 3.0).all())
    assert log_decay.grad is not None
    assert bool(log_decay.grad.isfinite().all())
