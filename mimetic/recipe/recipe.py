"""The whole recipe: what is trained, from which beginnings, on how many seeds."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from mimetic.recipe.base import Count, FromList, Name, Section, Spec
from mimetic.recipe.registry import Registered
from mimetic.recipe.rule import Rule
from mimetic.recipe.train import Train

Unmatched = Literal["keep", "error"]


def _seed_list(value: Any) -> Any:
    """Let `seeds: 3` stand for the seeds 0, 1, 2."""
    if isinstance(value, int) and not isinstance(value, bool):
        return tuple(range(value))
    return value


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    FromList,
    BeforeValidator(_seed_list, json_schema_input_type=int | list[int]),
]


class Arm(Section):
    """A named variant, complete: what the recipe says for all arms is already merged in."""

    model: Annotated[Spec, Registered("model")] | None = Field(None, description="The network.")
    data: Annotated[Spec, Registered("data")] | None = Field(None, description="The images.")
    train: Train | None = Field(None, description="How the network is trained.")
    init: Annotated[tuple[Rule, ...], FromList] = Field(default=(), description="Rules, first match wins per parameter.")
    unmatched: Unmatched = Field(
        "keep", description="What no rule matches keeps the model's own initialization, or is an error."
    )

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [rule.id for rule in self.init]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            message = f"two rules have the id {', '.join(f'`{i}`' for i in twice)}"
            raise ValueError(message)
        return self


class Study(Section):
    """How the trials are executed and compared."""

    workers: Count | None = Field(
        None, description="Worker processes; one per core on a CPU and one per GPU unless given."
    )
    metric: str = Field(
        "test/acc", pattern=r"^(train|val|test)/(acc|loss)$", description="Metric the arms are compared by."
    )


class Recipe(Section):
    """A recipe after composition: every arm is complete."""

    recipe: Literal[1] = Field(1, description="Version of the language.")
    name: Name = Field(description="Name of the recipe and of its MLflow experiment.")
    description: str | None = Field(None, max_length=2000, description="One paragraph on what it shows.")
    seeds: Seeds = Field((0,), min_length=1, description="Number of seeds, or a list of them.")
    baseline: str | None = Field(None, description="The arm the others are compared with; the first unless given.")
    study: Study = Field(default_factory=Study, description="Execution and comparison.")
    arms: dict[Name, Arm] = Field(min_length=1, description="The variants that are compared.")

    _origin: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline is not None and self.baseline not in self.arms:
            names = ", ".join(f"`{name}`" for name in self.arms)
            message = f"`baseline` names no arm: `{self.baseline}` (arms: {names})"
            raise ValueError(message)
        if len(set(self.seeds)) < len(self.seeds):
            message = "a seed stands twice in `seeds`"
            raise ValueError(message)
        return self
