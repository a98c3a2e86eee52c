"""Learning-rate schedules as pure functions of the step.

`rate(spec, step=, steps=)` is the share of the peak learning rate used at one step, so that a resumed run
needs no scheduler state. Plugins register another schedule with `@rate.register`.
"""

import math
from functools import singledispatch

from mimetic.config.registry import Component
from mimetic.train.config import ConstantRate, Cosine, OneCycle, Triangular


@singledispatch
def rate(spec: Component, *, step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the peak, in [0, 1].

    Args:
        spec: The schedule of the recipe.
        step: The step, 0 … steps - 1.
        steps: Steps of the whole training.

    Raises:
        NotImplementedError: If no schedule is registered for the section's type.
    """
    message = f"no schedule is registered for {type(spec).__name__}"
    raise NotImplementedError(message)


@rate.register
def _constant(spec: ConstantRate, *, step: int, steps: int) -> float:
    """Return min(1, (t + 1) / (warmup · T))."""
    return min(1.0, _warmup(spec.warmup, step=step, steps=steps))


@rate.register
def _cosine(spec: Cosine, *, step: int, steps: int) -> float:
    """Return end + (1 - end)(1 + cos πs) / 2 with s from 0 after the warm-up to 1 at the last step."""
    rising = _warmup(spec.warmup, step=step, steps=steps)
    if rising < 1.0:
        return rising
    first = max(spec.warmup * steps - 1, 0.0)  # the step whose rate is the peak
    return _anneal(1.0, spec.end, _share(step, start=first, stop=steps - 1))


@rate.register
def _one_cycle(spec: OneCycle, *, step: int, steps: int) -> float:
    """Return the two cosines of `torch.optim.lr_scheduler.OneCycleLR`, anneal_strategy='cos'."""
    start = 1.0 / spec.start_div
    peak = spec.rise * steps - 1  # OneCycleLR's own counting: its peak lies one step early
    if step <= peak:
        return _anneal(start, 1.0, _share(step, start=0.0, stop=peak))
    return _anneal(1.0, start / spec.end_div, _share(step, start=peak, stop=steps - 1))


@rate.register
def _triangular(spec: Triangular, *, step: int, steps: int) -> float:
    """Interpolate between the knots (0, 0), (rise, 1), (fall, low), (1, 0) at (t + 1) / T.

    With the defaults the schedule of locuslab/convmixer-cifar10, which also reads it at the end of a step.
    """
    at = (step + 1) / steps
    if at <= spec.rise:
        return at / spec.rise
    if at <= spec.fall:
        return _between(1.0, spec.low, _share(at, start=spec.rise, stop=spec.fall))
    return _between(spec.low, 0.0, _share(at, start=spec.fall, stop=1.0))


def _warmup(share: float, *, step: int, steps: int) -> float:
    """Return how far a linear warm-up over a share of training has come; 1 or more once it is over."""
    return (step + 1) / (share * steps) if share > 0.0 else 1.0


def _share(at: float, *, start: float, stop: float) -> float:
    """Return where `at` lies between start and stop, in [0, 1]; 0 where both fall together."""
    return min(max((at - start) / (stop - start), 0.0), 1.0) if stop > start else 0.0


def _anneal(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * share))


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * share
