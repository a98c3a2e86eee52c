"""Learning rates against torch's own schedules and against their knots."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.train.config import ConstantRate, Cosine, OneCycle, Schedule, Triangular
from mimetic.train.schedules import continues, make_schedule

SHARES = st.floats(0.0, 1.0)
SCHEDULES = st.one_of(
    st.builds(ConstantRate, warmup=SHARES),
    st.builds(Cosine, warmup=SHARES, end=SHARES),
    st.builds(OneCycle, rise=SHARES, start_div=st.floats(1.0, 100.0), end_div=st.floats(1.0, 1e5)),
    st.builds(Triangular, rise=SHARES, fall=SHARES, low=SHARES),
)


def _curve(spec: Schedule, steps: int) -> list[float]:
    return list(map(make_schedule(spec, steps=steps), range(steps)))


@given(SCHEDULES, st.integers(1, 200))
def test_rate_lies_between_zero_and_the_peak(spec: Schedule, steps: int) -> None:
    """Every schedule stays in [0, 1], whatever its settings and however short the training."""
    assert all(0.0 <= value <= 1.0 for value in _curve(spec, steps))


@pytest.mark.parametrize("steps", [5, 16, 97, 1000])
@pytest.mark.parametrize("spec", [OneCycle(), OneCycle(rise=0.25, start_div=10.0, end_div=100.0)])
def test_one_cycle_is_torch_s(spec: OneCycle, steps: int) -> None:
    """The learning rate of every step equals OneCycleLR's to 1e-12."""
    peak = 0.01
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=steps,
        pct_start=spec.rise,
        div_factor=spec.start_div,
        final_div_factor=spec.end_div,
    )
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < steps:
            theirs.step()
    assert pytest.approx(expected, abs=1e-12, rel=0) == [peak * value for value in _curve(spec, steps)]


def test_triangular_passes_through_its_knots() -> None:
    """Zero, the peak at 2/5, a twentieth at 4/5, zero at the end, straight in between."""
    curve = [0.0, *_curve(Triangular(), 10)]
    expected = [0.0, 0.25, 0.5, 0.75, 1.0, 0.7625, 0.525, 0.2875, 0.05, 0.025, 0.0]
    assert pytest.approx(expected) == curve


def test_cosine_ends_at_its_end() -> None:
    """The first step has the peak, the middle the mean, the last the end."""
    curve = _curve(Cosine(end=0.1), 11)
    assert pytest.approx([1.0, 0.55, 0.1]) == [curve[0], curve[5], curve[10]]


def test_warmup_rises_linearly_to_the_peak() -> None:
    """With a warm-up of 4 steps out of 10 the peak is reached at the fourth."""
    assert pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0]) == _curve(ConstantRate(warmup=0.4), 10)[:5]
    cosine = _curve(Cosine(warmup=0.4), 10)
    assert pytest.approx([0.25, 0.5, 0.75, 1.0]) == cosine[:4]
    assert pytest.approx([1.0, 0.5, 0.0]) == [cosine[3], cosine[6], cosine[9]]


@pytest.mark.parametrize(
    "spec", [Cosine(), OneCycle(), Triangular(), ConstantRate(warmup=0.1), ConstantRate()]
)
def test_only_a_constant_rate_continues(spec: Schedule) -> None:
    """The rates of a longer training begin with those of a shorter one where no step counts the steps."""
    assert continues(spec, steps=40, longer=60) == (spec == ConstantRate())
