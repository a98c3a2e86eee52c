"""The garbage collector is kept off only where that changes nothing."""

import gc
import sys
from types import ModuleType

import pytest

from mimetic.collector import end_quickly, paused_collector


def test_paused_within_the_block() -> None:
    """It goes on afterwards; one that was off stays off."""
    with paused_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("modules", "kept"), [({}, True), ({"triton": ModuleType("triton")}, False)])
def test_the_end_looks_for_no_garbage(
    modules: dict[str, ModuleType], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All there is is put out of the collector's sight; not with Triton, which would complain on stderr."""
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    gc.unfreeze()
    try:
        end_quickly()
        assert (gc.get_freeze_count() > 0) is kept
    finally:
        gc.unfreeze()
