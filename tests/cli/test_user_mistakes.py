"""A user's mistake ends in a message with a code, never in one about a mistake of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimetic.data.config import ImageFolder
from mimetic.data.load import describe_dataset
from mimetic.errors import UserError
from mimetic.study.executors.torchrun import rank0_context
from mimetic.tracking.store import tracking_uri
from mimetic.train.devices import pick_device


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "RECIPE", "--device", "meta"), "MIM-T004"),
        (("run", "RECIPE", "--device", "xpu:0"), "MIM-T004"),
        (("run", "RECIPE", "--root", "a\nb"), "MIM-X051"),
        (("ui", "--port", "-1"), "--port"),
        (("ui", "--port", "99999"), "--port"),
        (("validate", "/dev/zero"), "MIM-C003"),
    ],
)
def test_command_line(
    words: tuple[str, ...], code: str, call: Callable[..., Any], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of options."""
    monkeypatch.chdir(tiny.parent)
    result = call(*(str(tiny) if word == "RECIPE" else word for word in words))

    assert result.exit_code == 2
    assert code in result.stderr
    assert "Traceback" not in result.output


def test_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of folders and of the environment."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-C075"):
        describe_dataset(ImageFolder(path="~nobody-of-this-name/x"))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-C075"):
        describe_dataset(ImageFolder(path="x", root="~nobody-of-this-name"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-L009"):
        tracking_uri(tmp_path)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-Y290"), rank0_context():
        pass
    assert pick_device("cpu").type == "cpu"
