"""Start MLflow's UI on the store, with one worker and no job runner.

By default it starts fifteen processes that take three gigabytes; like this, two that take half a gigabyte.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mimetic.errors import RunError, UserError
from mimetic.tracking.store import connect, redacted, store_errors
from mimetic.tracking.views import experiment_link

HOST = "127.0.0.1"
_PORTS = 100
_UNSAFE = frozenset({5060, 5061})  # browsers refuse them
_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True)
class Server:
    """How to start the UI and what to open.

    The store is without passwords; links are experiment → address of its saved view, the newest first.
    """

    store: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    address: str
    links: Mapping[str, str]


def prepare(root: str | os.PathLike[str], *, port: int = 5000) -> Server:
    """Return how to start the UI on the store of a root; nothing is started.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used, or is a server, which has its own UI.
        RunError: If the store does not work, or no port is free.
    """
    uri, client = connect(root)
    with store_errors(uri):
        experiments = client.search_experiments(order_by=["last_update_time DESC"], max_results=20)
    is_server = uri.startswith(("http://", "https://"))
    chosen = port if is_server else free_port(port)
    address = redacted(uri) if is_server else f"http://{HOST}:{chosen}"
    links = {
        e.name: experiment_link(address, e.experiment_id, e.tags) for e in experiments if e.name != "Default"
    }
    if is_server:
        listed = "".join(f"\n  {name}: {link}" for name, link in links.items())
        raise UserError(
            f"$MLFLOW_TRACKING_URI is a server with its own UI: open {address}{listed}", code="MIM-L005"
        )
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST]
    command += ["--port", str(chosen), "--workers", "1"]
    command += ["--default-artifact-root", (Path(root).resolve() / "artifacts").as_uri()]
    return Server(redacted(uri), tuple(command), {**os.environ, **_SETTINGS}, address, links)


def free_port(first: int) -> int:
    """Return the first free port from `first` on.

    Raises:
        RunError: If a hundred of them are taken.
    """
    for port in range(first, min(first + _PORTS, 65536)):
        if port not in _UNSAFE and _is_free(port):
            return port
    raise RunError(
        f"the ports {first} to {first + _PORTS - 1} of {HOST} are taken; choose another with --port",
        code="MIM-L006",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
