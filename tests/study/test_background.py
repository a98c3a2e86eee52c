"""A study's tracker is opened beside its start: nothing waits for it, and nothing is lost."""

import threading

import pytest

from mimetic.study.background import BackgroundTracker


class Counting:
    """A tracker that counts what it is asked."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.pumped, self.reasons = 0, list[str]()

    def pump(self) -> None:
        """Count."""
        self.pumped += 1

    def abandon(self, reason: str) -> None:
        """Keep the reason."""
        self.reasons.append(reason)


def test_pumping_waits_for_no_store() -> None:
    """Until the store is open a pump does nothing; from then on it pumps, and the end waits for it."""
    tracker, let = Counting(), threading.Event()

    def opening() -> Counting:
        assert let.wait(30)
        return tracker

    tracking = BackgroundTracker(opening)
    tracking.pump()
    assert tracker.pumped == 0
    let.set()
    assert tracking.wait() is tracker
    tracking.pump()
    assert tracker.pumped == 1


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
    tracking.pump()
    tracking.abandon("nobody listens")


def test_trouble_of_the_opening_is_raised_where_the_tracker_is_asked_for() -> None:
    """A mistake in the thread is not lost with it."""

    def broken() -> None:
        raise ValueError("as asked")

    with pytest.raises(ValueError, match="as asked"):
        BackgroundTracker(broken).wait()
