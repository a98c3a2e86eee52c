"""The whole recipe: what is trained, from which initializations, on how many seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from mimetic.config.address import Among, ConfigPath
from mimetic.config.base import FromList, Name, Section, listed_once, validation_error
from mimetic.config.errors import FilePosition, Step
from mimetic.config.registry import Component, Registered
from mimetic.config.suggest import choice
from mimetic.config.text.tree import find, shown
from mimetic.data.config import DataSection
from mimetic.kernels.config import Learner
from mimetic.models.config import Model
from mimetic.printable import pluralize
from mimetic.recipe.measurements import Measure
from mimetic.recipe.rule import Rule
from mimetic.recipe.stages import Node, StageGraph, stage_refs
from mimetic.study.config import Halving, Study
from mimetic.surgery.config import Rewrite
from mimetic.tables import NONE, Table
from mimetic.train.config import Train

Unmatched = Literal["keep", "error"]

_FOLDERS = frozenset({"extends", "logs", "revisions"})
_FILES = (".json", ".yaml", ".md", ".png")
"""What the folder of a study, or of a stage, has beside those of arms."""

MAX_SEEDS = 1000
"""Maximum number of seeds of a recipe."""


def _seed_list(value: Any) -> Any:
    """Expand `seeds: 3` to the seeds 0, 1, 2."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            message = f"the number of seeds must be between 1 and {MAX_SEEDS}, found {shown(value)}"
            raise validation_error(message, code="MIM-R011")
        return tuple(range(value))
    if not isinstance(value, list | tuple):
        message = f"expected a number of seeds or a list of them, found {shown(value)}"
        hint = "write `seeds: 3` or `seeds: [0, 1, 2]`"
        raise validation_error(message, code="MIM-R012", hint=hint)
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where a recipe came from; it does not affect equality.

    The tree has the position of every value of the composed recipe; sources are its files by name.
    """

    tree: Any = None
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Provenance)

    def __hash__(self) -> int:
        return hash(Provenance)


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(min_length=1, max_length=MAX_SEEDS),
    FromList,
    BeforeValidator(_seed_list, json_schema_input_type=int | list[int]),
    AfterValidator(listed_once("seed")),
]


Named = TypeVar("Named", Rule, Rewrite)


def _ids_differ(entries: tuple[Named, ...]) -> tuple[Named, ...]:
    ids = [entry.id for entry in entries]
    for index, name in enumerate(ids):
        if name in ids[:index]:
            noun = "rules" if isinstance(entries[index], Rule) else "rewrites"
            hint = "give one of them another id"
            message = f"two {noun} have the id `{name}`"
            raise validation_error(message, code="MIM-R013", at=(index,), hint=hint)
    return entries


class Arm(Section):
    """A named variant, complete: what all arms share is already merged in."""

    model: Annotated[Model, Registered("model")] | None = Field(None, description="The network.")
    surgery: Annotated[
        tuple[Annotated[Rewrite, Registered("surgery")], ...], FromList, AfterValidator(_ids_differ)
    ] = Field(
        default=(),
        description="Rewrites of the network before its initialization, first match wins.",
    )
    data: Annotated[DataSection, Registered("data")] | None = Field(None, description="The data.")
    train: Train | None = Field(None, description="How the network is trained.")
    init: Annotated[tuple[Rule, ...], FromList, AfterValidator(_ids_differ)] = Field(
        default=(), description="Rules, first match wins per parameter."
    )
    unmatched: Unmatched = Field(
        "keep", description="What no rule matches keeps the model's own initialization, or is an error."
    )
    measure: Measure | None = Field(None, description="What is measured while the network is trained.")
    learner: Annotated[Learner, Registered("learner")] | None = Field(
        None, description="A learner without backpropagation, instead of a model and its training."
    )
    candidate_of: Name | None = Field(
        None, description="The arm that takes this one's values if `study.select` chooses it."
    )

    @model_validator(mode="after")
    def _learns_one_way(self) -> Self:
        for key in ("model", "surgery", "train", "init", "measure") if self.learner is not None else ():
            if getattr(self, key):
                hint = f"remove `{key}`, or the `learner`"
                message = f"a `learner` replaces `{key}`"
                raise validation_error(message, code="MIM-R014", at=(key,), hint=hint)
        return self


def _row(arm: Arm) -> tuple[str, ...]:
    """Return what an arm consists of: model or learner, data, epochs, rewrites, rules."""
    network: Component | None = arm.model if arm.learner is None else arm.learner
    types = (NONE if section is None else section.type_name() for section in (network, arm.data))
    epochs = NONE if arm.train is None else str(arm.train.epochs)
    return (*types, epochs, str(len(arm.surgery)), str(len(arm.init)))


class Stage(Arm):
    """A training whose only purpose is to be harvested, complete like an arm.

    It has the recipe's model, data and training, and the model's own initialization, unless changed.
    """

    seeds: Seeds | None = Field(
        None,
        description="Number of its own seeds, or a list of them, shared by all trials; each trial's own "
        "seed unless given.",
    )


class Recipe(Section):
    """A recipe after composition: every arm is complete."""

    recipe: Literal[1] = Field(1, description="Version of the language.")
    name: Name = Field(description="Name of the recipe and of its MLflow experiment.")
    description: str | None = Field(None, max_length=2000, description="One paragraph on what it shows.")
    seeds: Seeds = Field((0,), description="Number of seeds, or a list of them.")
    baseline: str | None = Field(
        None, description="The arm the others are compared with; the first unless given."
    )
    study: Study = Field(default_factory=Study, description="Execution and comparison.")
    arms: dict[Name, Arm] = Field(min_length=1, description="The variants that are compared.")
    stages: dict[Name, Stage] = Field(
        default_factory=dict, description="Trainings that arms, and other stages, harvest."
    )

    _provenance: Provenance = PrivateAttr(default_factory=Provenance)
    _run_folders: Mapping[str, Path] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lowered: dict[tuple[str, str], str] = {}
        for group, name in (*(("arms", arm) for arm in self.arms), *(("stages", s) for s in self.stages)):
            if name.lower() in _FOLDERS or name.lower().endswith(_FILES):
                message = f"every study has a file or a folder `{name}`"
                raise validation_error(message, code="MIM-R016", at=(group, name), hint="choose another name")
            other = lowered.setdefault((group, name.lower()), name)
            if other != name:
                message = f"`{other}` and `{name}` differ in case only, and their folders may be one"
                raise validation_error(message, code="MIM-R017", at=(group, name), hint="choose another name")
        if self.baseline is not None and self.baseline not in self.arms:
            hint = choice(self.baseline, self.arms, label="arms")
            message = f"there is no arm `{self.baseline}`"
            raise validation_error(message, code="MIM-R015", at=("baseline",), hint=hint)
        self._check_candidates()
        self._check_halving()
        self._check_validation_data()
        errors = [InitErrorDetails(type=error, input=None) for error in self._stage_graph().errors()]
        if errors:
            raise ValidationError.from_exception_data("Recipe", errors)
        return self

    def __repr__(self) -> str:
        """Return a summary in one line."""
        return f"<Recipe {self._summary}>"

    def _repr_html_(self) -> str:
        header = ("arm", "model", "data", "epochs", "surgery", "rules")
        rows = tuple((name, *_row(arm)) for name, arm in self.arms.items())
        return Table(self._summary, header, rows, left=3).page()

    @property
    def _summary(self) -> str:
        return f"{self.name}: {self.size}"

    @property
    def size(self) -> str:
        """Return how many arms are compared on how many seeds, and how many candidates are tried before."""
        candidates, select = self._candidate_names, self.study.select
        compared = pluralize(len(self.arms) - len(candidates), "arm")
        size = f"{compared} × {pluralize(len(self.seeds), 'seed')}"
        if select is None:
            return size
        tried = pluralize(len(candidates), "candidate")
        return f"{size}, after {tried} × {pluralize(len(select.seeds), 'seed')}"

    @property
    def baseline_arm(self) -> str:
        """Return the arm that the others are compared with."""
        return next(iter(self.arms)) if self.baseline is None else self.baseline

    def candidates(self) -> dict[str, list[str]]:
        """Return the candidates by the arm that takes the values of one of them."""
        found: dict[str, list[str]] = {}
        for name, arm in self.arms.items():
            if arm.candidate_of is not None:
                found.setdefault(arm.candidate_of, []).append(name)
        return found

    @property
    def _candidate_names(self) -> list[str]:
        return [name for name, arm in self.arms.items() if arm.candidate_of is not None]

    def _check_candidates(self) -> None:
        """Refuse a selection without candidates, candidates without a selection, and shared seeds."""
        select, candidates, everyone = self.study.select, self.candidates(), self._candidate_names
        for target, names in candidates.items():
            at = ("arms", names[0], "candidate_of")
            if select is None:
                hint = "write `study: {select: {seeds: [100, 101]}}`"
                raise validation_error("`study.select` is missing", code="MIM-R018", at=at, hint=hint)
            if target not in self.arms or target in everyone:
                hint = choice(target, [arm for arm in self.arms if arm not in everyone], label="arms")
                message = f"there is no arm `{target}` that could take its values"
                raise validation_error(message, code="MIM-R019", at=at, hint=hint)
        if select is None:
            return
        where = ("study", "select")
        if not candidates:
            hint = "add a `sweep` to an arm, such as `sweep: {train.optimizer.lr: [0.003, 0.01]}`"
            raise validation_error(
                "no arm has a `sweep` to select from", code="MIM-R020", at=where, hint=hint
            )
        if shared := sorted(set(select.seeds) & set(self.seeds)):
            message = f"seed {shared[0]} is one of the recipe's: the choice would have seen it"
            raise validation_error(message, code="MIM-R027", at=(*where, "seeds"), hint="choose other seeds")
        if self.baseline in everyone:
            message = f"`{self.baseline}` is a candidate, and candidates are not compared on test data"
            raise validation_error(message, code="MIM-R028", at=("baseline",), hint="name another arm")

    def _check_halving(self) -> None:
        """Refuse a halving that can stop no arm, or would stop one that others need."""
        if self.study.halving is None:
            return
        self._check_rungs(self.study.halving)
        if self.study.select is None:
            self._check_competing()
            self._check_groups(self.study.halving.groups)
        elif any(self.study.halving.groups):
            message, hint = "with `select` the candidates of each arm compete", "remove the groups"
            at = ("study", "halving", "groups")
            raise validation_error(message, code="MIM-R038", at=at, hint=hint)

    def _check_rungs(self, halving: Halving) -> None:
        """Refuse a first rung of all seeds."""
        select = self.study.select
        seeds = self.seeds if select is None else select.seeds
        if halving.min_seeds >= len(seeds):
            hint = "add seeds, or lower `min_seeds`"
            message = f"the first rung has {halving.min_seeds} of {len(seeds)} seeds: no arm would stop"
            raise validation_error(message, code="MIM-R029", at=("study", "halving"), hint=hint)

    def _check_competing(self) -> None:
        """Refuse groups of single arms."""
        if max(map(len, self.competing())) <= 1:
            hint = "add arms: the baseline and arms that others harvest do not compete"
            at = ("study", "halving")
            raise validation_error("no two arms compete", code="MIM-R030", at=at, hint=hint)

    def _check_groups(self, groups: tuple[tuple[str, ...], ...]) -> None:
        """Refuse names that are no arm which can stop, and those listed twice."""
        listed: set[str] = set()
        stoppable = [arm for arm in self.arms if arm not in self._harvested()]
        for i, j, name in ((i, j, name) for i, group in enumerate(groups) for j, name in enumerate(group)):
            where = ("study", "halving", "groups", i, j)
            if name not in stoppable:
                hint = choice(name, stoppable, label="arms")
                message = f"`{name}` is no arm that can stop"
                raise validation_error(message, code="MIM-R039", at=where, hint=hint)
            if name in listed:
                hint = "remove it from one group"
                raise validation_error(f"`{name}` is listed twice", code="MIM-R040", at=where, hint=hint)
            listed.add(name)

    def _check_validation_data(self) -> None:
        """Refuse to compare arms, or to decide about them, by validation images that they do not have."""
        study, candidates = self.study, self._candidate_names
        compared = [name for name in self.arms if name not in candidates]
        deciding = {"metric": (study.metric, compared)}
        if study.select is not None:
            deciding["select"] = (study.select.metric, candidates)
        if study.halving is not None:
            stoppable = [name for group in self.competing() for name in group]
            deciding["halving"] = (study.halving.metric, candidates or stoppable)
        for key, (metric, names) in deciding.items():
            data = {name: self.arms[name].data for name in names} if metric.startswith("val/") else {}
            without = [name for name, one in data.items() if one is not None and one.num_validation == 0]
            if without:
                who = f"the arm `{without[0]}` has" if len(without) == 1 else f"{len(without)} arms have"
                message = f"`{metric}` needs validation images, and {who} none"
                hint = "set `data.val_size`"
                raise validation_error(message, code="MIM-R099", at=("study", key), hint=hint)

    def competing(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups of arms of which `study.halving` stops the worse ones; none without it.

        Unless groups are given, the baseline is not stopped. What other arms harvest never is.
        """
        halving = self.study.halving
        if halving is None or halving.groups:
            return () if halving is None else halving.groups
        running = {self.baseline_arm, *self._harvested()}
        return (tuple(name for name in self.arms if name not in running),)

    def _harvested(self) -> set[str]:
        """Return the arms that other arms harvest."""
        return {ref.of[1] for ref in self._stage_graph().refs if ref.of[0] == "arms"}

    def _stage_graph(self) -> StageGraph:
        """Return who harvests which stage."""
        groups: dict[str, Mapping[str, Arm]] = {"arms": self.arms, "stages": self.stages}
        members = ((group, name) for group, sections in groups.items() for name in sections)
        refs = [ref for group, name in members for ref in stage_refs((group, name), groups[group][name].init)]
        seeds = {name: stage.seeds for name, stage in self.stages.items()}
        return StageGraph(tuple(self.arms), seeds, self.seeds, refs)

    def stage_order(self) -> tuple[str, ...]:
        """Return the names of the stages in an order in which they can be trained."""
        return self._stage_graph().stage_order()

    def generations(self) -> tuple[tuple[Node, ...], ...]:
        """Return stages and arms, e.g. ("arms", "default"), in topological generations."""
        return self._stage_graph().generations()

    def where(self, *path: Step) -> FilePosition | None:
        """Return where a value was written.

        Args:
            *path: Keys of the composed recipe, e.g. "arms", "small", "init", 0; rules by index or id.

        Returns:
            Its position; None for defaults, and if the recipe came as a mapping.
        """
        spot = find(self._provenance.tree, path)
        return None if spot is None else spot.value

    def address(self, name: str, among: Among = "arms") -> ConfigPath:
        """Return the path of an arm or a stage: `address("small", "stages").mark("init", 0)`."""
        return ConfigPath(among, name, self.where)

    def addresses(self) -> tuple[ConfigPath, ...]:
        """Return the paths of the arms, then of the stages."""
        stages = (self.address(name, "stages") for name in self.stages)
        return (*map(self.address, self.arms), *stages)

    def section(self, at: ConfigPath) -> Arm:
        """Return the arm or the stage at a path."""
        return self.arms[at.name] if at.among == "arms" else self.stages[at.name]

    @property
    def run_folders(self) -> Mapping[str, Path]:
        """Return the folders of the trials that `from: {run: ID}` names, by id, as far as they are found."""
        return self._run_folders

    def with_arms(self, arms: Mapping[str, Arm], **changes: object) -> "Recipe":
        """Return a recipe with other arms, none of them a candidate, and with what these harvest.

        Args:
            arms: The arms.
            **changes: Other fields of the recipe.
        """
        members: dict[Node, Arm] = {("arms", name): arm for name, arm in arms.items()}
        queue = list(members)
        for node in queue:  # grows during the iteration
            for ref in stage_refs(node, members[node].init):
                if ref.of not in members:
                    group, name = ref.of
                    members[ref.of] = self.arms[name] if group == "arms" else self.stages[name]
                    queue.append(ref.of)
        trained = {
            name: arm.model_copy(update={"candidate_of": None})
            for (group, name), arm in members.items()
            if group == "arms"
        }
        stages = {name: stage for name, stage in self.stages.items() if ("stages", name) in members}
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        recipe = Recipe.model_validate({**fields, **changes, "arms": trained, "stages": stages})
        recipe._provenance, recipe._run_folders = self._provenance, self._run_folders  # noqa: SLF001
        return recipe

    def with_run_folders(self, folders: Mapping[str, Path]) -> Self:
        """Return the recipe with the folders of the runs it names."""
        found = self.model_copy()
        found._run_folders = dict(folders)  # noqa: SLF001
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know about the recipe, though it is no error."""
        return self._provenance.notes

    def same_experiments(self) -> list[str]:
        """Return a note for each arm that is an earlier one again, apart from the ids of its rules."""
        first: dict[str, str] = {}
        notes = []
        for name, arm in self.arms.items():
            entries = {"init": {"__all__": {"id", "expect"}}, "surgery": {"__all__": {"id", "expect"}}}
            content = arm.model_dump_json(exclude={**entries, "measure": True, "unmatched": True})
            other = first.setdefault(content, name)
            if other != name:
                notes.append(
                    f"the arms `{other}` and `{name}` are the same experiment: their difference is 0"
                )
        return notes

    @property
    def sources(self) -> dict[str, str]:
        """Return the files the recipe was read from, as written: its own first, then those it extends."""
        return dict(self._provenance.sources)
