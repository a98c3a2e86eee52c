"""Scripts that each need a process in which nothing of ours is imported, but not the seconds of torch."""

from collections.abc import Sequence


def in_forks(scripts: Sequence[str]) -> str:
    """Return a script that runs others in forks of a process that has imported torch alone."""
    return f"""
import os, sys, traceback, torch
for script in {scripts!r}:
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            exec(script, {{"torch": torch}})
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, script
"""
