"""The one import of MLflow: without telemetry, without its log lines, with bounded waits.

It takes a second and a hundred megabytes, so nothing imports it before a store is opened.
"""

import logging
import os
import warnings
from types import ModuleType

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 with backoff hang for minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow asks for git at import and complains where there is none
}
_LOGGERS = ("mlflow", "alembic", "sqlalchemy")


def import_mlflow() -> ModuleType:
    """Return the `mlflow` package, quiet: what fails reaches us as an exception, not as a log line.

    Settings the user made in the environment stay.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, at import
        import mlflow
        import mlflow.tracking

    for name in _LOGGERS:  # MLflow sets levels at import, so ours come after it
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return mlflow
