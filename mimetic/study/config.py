"""How the trials of a study are executed and compared."""

from typing import Annotated

from pydantic import Field

from mimetic.config.base import Count, Section
from mimetic.config.registry import Component, Registered
from mimetic.metrics import COMPARABLE


class Executor(Component, family="executor"):
    """Base of the executors; `impl` is a `mimetic.study.executors.executor.ExecutorFunction`.

    `check`, if given, is called before a study is created: see `mimetic.study.executors.pick`.
    """


class Pool(Executor, type="pool", impl="mimetic.study.executors.pool:pool"):
    """Worker processes of this machine, each with a queue of trials."""


class Ray(
    Executor,
    type="ray",
    impl="mimetic.study.executors.ray:ray_tasks",
    check="mimetic.study.executors.ray:check_cluster",
):
    """Tasks of a Ray cluster, one per trial (`pip install 'mimetic[ray]'`)."""


class Study(Section):
    """How the trials are executed and compared."""

    executor: Annotated[Executor, Registered("executor")] = Field(
        default_factory=Pool, description="What trains the trials; torchrun's processes take precedence."
    )
    workers: Count | None = Field(
        None, description="Worker processes; one per core on a CPU and `slots` per GPU unless given."
    )
    slots: Count = Field(1, description="Trials that share a GPU at a time.")
    metric: str = Field(
        "test/acc",
        pattern=COMPARABLE,
        examples=["test/acc", "val/loss", "test/acc_len64"],
        description="Metric the arms are compared by.",
    )
