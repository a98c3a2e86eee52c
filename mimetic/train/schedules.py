"""Learning-rate schedules as pure functions of the step, so a resumed run needs no scheduler state."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from mimetic.config.registry import implementation
from mimetic.train.config import ConstantRate, Cosine, OneCycle, Schedule, Triangular

Spec_contra = TypeVar("Spec_contra", bound=Schedule, contravariant=True)


class ScheduleFunction(Protocol[Spec_contra]):
    """The implementation of a schedule of the recipe, `impl=` of its section."""

    def __call__(self, spec: Spec_contra, *, step: int, steps: int) -> float:
        """Return the learning rate of a step as a fraction of the peak, in [0, 1].

        Steps are 0 … steps - 1.
        """


def make_schedule(spec: Schedule, *, steps: int) -> Callable[[int], float]:
    """Return the function from a step to its learning rate as a fraction of the peak."""
    rate: ScheduleFunction[Any] = implementation(spec)
    at_step = partial(rate, spec, steps=steps)
    return lambda step: at_step(step=step)


def continues(spec: Schedule, *, steps: int, longer: int) -> bool:
    """Return whether a training of `longer` steps has, step by step, the rates of one of fewer steps.

    The shorter one can then be continued to the same bits.
    """
    short, long = make_schedule(spec, steps=steps), make_schedule(spec, steps=longer)
    return all(short(step) == long(step) for step in range(steps))


def constant(spec: ConstantRate, *, step: int, steps: int) -> float:
    """Return min(1, (t + 1) / (warmup · T))."""
    return min(1.0, _warmup(spec.warmup, step=step, steps=steps))


def cosine(spec: Cosine, *, step: int, steps: int) -> float:
    """Return end + (1 - end)(1 + cos πs) / 2 with s from 0 after the warm-up to 1 at the last step."""
    rising = _warmup(spec.warmup, step=step, steps=steps)
    if rising < 1.0:
        return rising
    peak = max(spec.warmup * steps - 1, 0.0)  # the step whose rate is the peak
    return _anneal(1.0, spec.end, _fraction(step, start=peak, stop=steps - 1))


def one_cycle(spec: OneCycle, *, step: int, steps: int) -> float:
    """Return the two cosines of `torch.optim.lr_scheduler.OneCycleLR`, anneal_strategy='cos'."""
    start = 1.0 / spec.start_div
    peak = spec.rise * steps - 1  # as OneCycleLR counts: its peak is one step early
    if step <= peak:
        return _anneal(start, 1.0, _fraction(step, start=0.0, stop=peak))
    return _anneal(1.0, start / spec.end_div, _fraction(step, start=peak, stop=steps - 1))


def triangular(spec: Triangular, *, step: int, steps: int) -> float:
    """Interpolate between the knots (0, 0), (rise, 1), (fall, low), (1, 0) at (t + 1) / T.

    The defaults are the schedule of locuslab/convmixer-cifar10, which also evaluates it at the end of a step.
    """
    at = (step + 1) / steps
    if at <= spec.rise:
        return at / spec.rise
    if at <= spec.fall:
        return _interpolate(1.0, spec.low, _fraction(at, start=spec.rise, stop=spec.fall))
    return _interpolate(spec.low, 0.0, _fraction(at, start=spec.fall, stop=1.0))


def _warmup(fraction: float, *, step: int, steps: int) -> float:
    """Return the progress of a linear warm-up over a fraction of training; 1 or more once it is over."""
    return (step + 1) / (fraction * steps) if fraction > 0.0 else 1.0


def _fraction(at: float, *, start: float, stop: float) -> float:
    """Return where `at` is between start and stop, in [0, 1]; 0 where they are equal."""
    return min(max((at - start) / (stop - start), 0.0), 1.0) if stop > start else 0.0


def _anneal(first: float, last: float, fraction: float) -> float:
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * fraction))


def _interpolate(first: float, last: float, fraction: float) -> float:
    return first + (last - first) * fraction
