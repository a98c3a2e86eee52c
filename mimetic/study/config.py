"""How the trials of a study are executed and compared."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from mimetic.config.base import Count, FromList, Name, Section, listed_once, validation_error
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


class _Decision(Section):
    """A decision about arms, which looks at validation data alone."""

    metric: str = Field(
        "val/acc",
        pattern=COMPARABLE,
        examples=["val/acc", "val/loss"],
        description="Metric of validation data by which is decided.",
    )

    @model_validator(mode="after")
    def _on_validation_data(self) -> Self:
        if not self.metric.startswith("val/"):
            raise validation_error(
                f"`{self.metric}` is no metric of validation data",
                code="MIM-Y081",
                at=("metric",),
                hint="decide by `val/acc` or `val/loss`, and compare on test data",
            )
        return self


class Select(_Decision):
    """How the values of swept arms are chosen: on validation data, on seeds the comparison does not use."""

    expected: ClassVar[str] = "a map such as `{seeds: [100, 101]}`"

    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
        FromList,
        AfterValidator(listed_once("seed")),
    ] = Field(description="Seeds of the candidates, none of which is one of the recipe's.")


class Halving(_Decision):
    """Successive halving: only the best arms are trained on further seeds (arXiv 1502.07943)."""

    expected: ClassVar[str] = "a map such as `{factor: 2}`"

    factor: int = Field(
        2,
        ge=2,
        description="Each rung has this many times the seeds of the one before; of the arms, one in this "
        "many goes on to it.",
    )
    min_seeds: Count = Field(1, description="Seeds of the first rung, the first ones of the list.")
    groups: Annotated[tuple[Annotated[tuple[Name, ...], Field(min_length=2), FromList], ...], FromList] = (
        Field(
            default=(),
            description="Arms that compete among themselves, and no others do; by default the candidates of "
            "each arm, and without `select` all arms but the baseline and those that others harvest.",
        )
    )


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
    select: Select | None = Field(
        None, description="Choose the values of swept arms first; without it every candidate is an arm."
    )
    halving: Halving | None = Field(
        None, description="Stop the worse arms early; with `select`, the worse candidates."
    )
