"""The interface: a light command line, on a free port, with links to the newest study."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from mimetic.errors import RunError, UserError
from mimetic.tracking import ui
from mimetic.tracking.store import Store
from mimetic.tracking.views import save_views, view_link


def test_the_command_has_one_worker_and_no_jobs(store: Store, root: Path) -> None:
    """As it comes, MLflow starts fifteen processes."""
    server = ui.prepare(root, port=5003)

    port = server.address.rpartition(":")[2]
    assert server.command[1:] == (
        "-P", "-m", "mlflow", "ui", "--backend-store-uri", store.uri, "--host", "127.0.0.1",
        "--port", port, "--workers", "1", "--default-artifact-root", f"file://{root}/artifacts",
    )  # fmt: skip
    assert server.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_next_free_port_is_taken() -> None:
    """Another interface may already run."""
    with socket.socket() as other:
        other.bind((ui.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]

        assert ui.free_port(taken) > taken


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the range and the option."""
    monkeypatch.setattr(ui, "_is_free", lambda _: False)

    with pytest.raises(RunError, match=r"the ports 5000 to 5099 .* --port"):
        ui.free_port(5000)


def test_links_open_the_newest_study_of_each_experiment(store: Store, root: Path) -> None:
    """Experiments of other tools get a link to their charts."""
    save_views(store, "20261101-000000", metric="test/acc")
    save_views(store, "20261102-000000", metric="test/acc")
    other = store.client.create_experiment("other")

    server = ui.prepare(root, port=5000)

    assert server.store == f"sqlite:///{root}/mlflow.db"
    assert server.links == {
        "quickstart": view_link(server.address, store.experiment_id, study="20261102-000000"),
        "other": view_link(server.address, other),
    }


def test_a_server_needs_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tracking server in the environment, the message says where to look."""

    class Client:
        def search_experiments(self, **_: object) -> list[object]:
            return []

    monkeypatch.setattr(ui, "connect", lambda _: ("http://tracker:5000", Client()))

    with pytest.raises(UserError, match="open http://tracker:5000"):
        ui.prepare(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_the_interface_answers(store: Store, root: Path) -> None:
    """The command starts a server that knows the experiment."""
    server = ui.prepare(root, port=5400)
    with subprocess.Popen(
        server.command,
        env=dict(server.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            assert _answer(f"{server.address}/health") == b"OK"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _answer(address: str) -> bytes:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5) as reply:  # noqa: S310 - our own server
                return bytes(reply.read())
        except OSError:
            time.sleep(0.5)
    return b""
