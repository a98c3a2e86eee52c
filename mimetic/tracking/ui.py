"""MLflow's own interface on the store: one worker and no job runner.

As it comes it starts fifteen processes of three gigabytes; so it is two of half a gigabyte.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimetic.errors import RunError, UserError
from mimetic.tracking.store import connect
from mimetic.tracking.trouble import redacted, store_trouble
from mimetic.tracking.views import latest_study, view_link

HOST = "127.0.0.1"
_PORTS = 100
_UNSAFE = frozenset({5060, 5061})  # browsers refuse them


@dataclass(frozen=True, slots=True)
class Server:
    """How to start the interface and what to open.

    Attributes:
        store: The store it shows, without passwords.
        command: The command line.
        environment: The environment to start it in.
        address: Where it will answer.
        links: Experiment → address of its saved view, the newest first.
    """

    store: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    address: str
    links: Mapping[str, str]


def prepare(root: str | os.PathLike[str], *, port: int = 5000) -> Server:
    """Return how to start the interface on the store of a root; nothing is started.

    Raises:
        UserError: If $MLFLOW_TRACKING_URI cannot be used, or is a server, which shows its runs itself.
        RunError: If the store does not work, or no port is free.
    """
    uri, client = connect(root)
    with store_trouble(uri):
        experiments = client.search_experiments(order_by=["last_update_time DESC"], max_results=20)
    shown = [experiment for experiment in experiments if experiment.name != "Default"]
    if uri.startswith(("http://", "https://")):
        there = "".join(f"\n  {e.name}: {_link(uri, e)}" for e in shown)
        raise UserError(
            f"$MLFLOW_TRACKING_URI is a server that shows its runs itself: open {redacted(uri)}{there}"
        )
    free = free_port(port)
    address = f"http://{HOST}:{free}"
    links = {experiment.name: _link(address, experiment) for experiment in shown}
    command, environment = ui_command(uri, port=free, root=root)
    return Server(redacted(uri), tuple(command), environment, address, links)


def _link(address: str, experiment: Any) -> str:
    return view_link(address, experiment.experiment_id, study=latest_study(experiment.tags))


def ui_command(
    store_uri: str, *, port: int, root: str | os.PathLike[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and environment of MLflow's interface on a store.

    Args:
        store_uri: Absolute tracking URI.
        port: A free port.
        root: Folder of the runs; artifacts made through the interface land below it.
    """
    argv = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri, "--host", HOST]
    argv += ["--port", str(port), "--workers", "1"]
    argv += ["--default-artifact-root", (Path(root).resolve() / "artifacts").as_uri()]
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    return argv, {**os.environ, **settings}


def free_port(first: int = 5000) -> int:
    """Return the first free port from `first` on.

    Raises:
        RunError: If a hundred of them are taken.
    """
    for port in range(first, min(first + _PORTS, 65536)):
        if port not in _UNSAFE and _is_free(port):
            return port
    raise RunError(
        f"the ports {first} to {first + _PORTS - 1} of {HOST} are taken; choose another with --port"
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
