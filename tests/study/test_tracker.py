"""A study's tracker is opened beside its start: nothing waits for it, and nothing is lost."""

import json
import threading
from pathlib import Path

import pytest

from mimetic.recipe.load import load
from mimetic.study.tracker import BackgroundTracker, StudyTrials


class Counting:
    """A tracker that counts what it is asked."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.synced, self.reasons = 0, list[str]()

    def sync(self) -> None:
        """Count."""
        self.synced += 1

    def finish(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def abandon(self, reason: str) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


def test_syncing_waits_for_no_store() -> None:
    """Until the store is open syncing does nothing; from then on it uploads, and the end waits for it."""
    tracker, let = Counting(), threading.Event()

    def opening() -> Counting:
        assert let.wait(30)
        return tracker

    tracking = BackgroundTracker(opening)
    tracking.sync()
    assert tracker.synced == 0
    let.set()
    assert tracking.wait() is tracker
    tracking.sync()
    assert tracker.synced == 1


def test_a_study_that_fails_ends_runs_that_are_being_made() -> None:
    """It waits for the tracker, so that none is left open; for one that hangs not for ever."""
    tracker, let = Counting(), threading.Event()
    tracking = BackgroundTracker(lambda: (let.wait(30), tracker)[1])
    threading.Timer(0.2, let.set).start()

    tracking.abandon("as asked")

    assert tracker.reasons == ["as asked"]


def test_without_a_tracker_nothing_happens() -> None:
    """Offline, or where the store does not work."""
    tracking = BackgroundTracker(lambda: None)
    assert tracking.wait() is None
    tracking.sync()
    tracking.abandon("nobody listens")


def test_an_error_while_opening_is_raised_by_wait() -> None:
    """A mistake in the thread is not lost with it."""

    def broken() -> None:
        raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        BackgroundTracker(broken).wait()


def test_params_are_what_differs_between_arms() -> None:
    """A run's page shows what makes its arm, not each of fifty settings; values compare in all runs."""
    rule = {
        "id": "f",
        "match": {"kind": "depthwise_conv"},
        "covariance": {"type": "filters", "from": {"stage": "s"}},
    }
    recipe = load(
        {
            "recipe": 1,
            "name": "x",
            "model": {"type": "convmixer", "dim": 8, "depth": 2},
            "data": {"type": "digits"},
            "train": {"epochs": 1},
            "arms": {"a": {}, "b": {"train": {"epochs": 2}, "init": [rule]}},
            "stages": {"s": {"seeds": 1, "model": {"dim": 4}}},
        }
    )

    assert StudyTrials(recipe, Path(), []).params == {
        "a": {"train.epochs": "1"},
        "b": {
            "train.epochs": "2",
            "init.f": json.dumps({name: value for name, value in rule.items() if name != "id"}),
        },
        "s": {"train.epochs": "1", "model.dim": "4"},
    }
