"""Owners: whether the process of a run still lives."""

import os
import subprocess
import sys

from mimetic.tracking.runs import HOST_TAG, PID_TAG, PROCESS_START_TAG, is_gone, owner_tags


def test_this_process_lives() -> None:
    """Our own tags are of a living process."""
    assert not is_gone(owner_tags())


def test_a_process_that_ended_is_gone() -> None:
    """Its number names nobody any more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tags = owner_tags(process.pid)
        assert not is_gone(tags)

    assert is_gone(tags)


def test_a_number_given_again_is_another_process() -> None:
    """The time of birth tells them apart."""
    assert is_gone(owner_tags() | {PROCESS_START_TAG: "1"})


def test_other_hosts_and_foreign_runs_are_left_alone() -> None:
    """We cannot know about them."""
    assert not is_gone(owner_tags() | {HOST_TAG: "elsewhere", PROCESS_START_TAG: "1"})
    assert not is_gone({})
    assert not is_gone({HOST_TAG: owner_tags()[HOST_TAG], PID_TAG: ""})
    assert owner_tags()[PID_TAG] == str(os.getpid())
