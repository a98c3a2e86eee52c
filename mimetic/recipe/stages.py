"""Stage references: who harvests whom, the training order, and the errors in it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from pydantic_core import PydanticCustomError

from mimetic.config.base import Section, entries_of, validation_error
from mimetic.config.errors import Step, clipped
from mimetic.config.suggest import choice
from mimetic.covariance.trained_ref import TrainedRef
from mimetic.recipe.rule import Rule

T = TypeVar("T")

UNUSED_STAGE = "MIM-R026"
"""Code of the error that no arm harvests a stage."""

_MAX_SHOWN = 8

Node = tuple[str, str]
"""An arm or a stage: ("arms", "transfer")."""


@dataclass(frozen=True, slots=True)
class StageRef:
    """One reference to a stage or an arm.

    `path` are the keys from the recipe to the `from`; seeds are `own`, `all` or numbers.
    """

    by: Node
    of: Node
    path: tuple[Step, ...]
    seeds: str | tuple[int, ...] = "own"


@dataclass(frozen=True, slots=True)
class StageGraph:
    """Arms, stages and the references between them.

    The seeds of a stage are None for the recipe's.
    """

    arms: Sequence[str]
    stages: Mapping[str, tuple[int, ...] | None]
    seeds: tuple[int, ...]
    refs: Sequence[StageRef]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the stages, then the arms."""
        return (*(("stages", name) for name in self.stages), *(("arms", name) for name in self.arms))

    def dependencies(self) -> dict[Node, tuple[Node, ...]]:
        """Return what each stage and arm harvests, each once."""
        found: dict[Node, dict[Node, None]] = {node: {} for node in self.nodes}
        for ref in self.refs:
            if ref.of in found:
                found[ref.by][ref.of] = None
        return {node: tuple(others) for node, others in found.items()}

    def stage_order(self) -> tuple[str, ...]:
        """Return the stages with every harvested stage before its harvesters."""
        order = TopologicalSorter(self.dependencies()).static_order()
        return tuple(name for group, name in order if group == "stages")

    def generations(self) -> tuple[tuple[Node, ...], ...]:
        """Return stages and arms in topological generations: each depends on earlier ones only."""
        sorter = TopologicalSorter(self.dependencies())
        sorter.prepare()
        found: list[tuple[Node, ...]] = []
        while sorter.is_active():
            ready = sorter.get_ready()
            found.append(tuple(sorted(ready, key=self.nodes.index)))
            sorter.done(*ready)
        return tuple(found)

    def errors(self) -> Iterator[PydanticCustomError]:
        """Yield everything that is wrong with the references, or else the stages nothing harvests."""
        nodes = set(self.nodes)
        known = [ref for ref in self.refs if ref.of in nodes]
        wrong = [self._unknown(ref) for ref in self.refs if ref.of not in nodes]
        for ref in known:
            if ref.by[0] == "stages" and ref.of[0] == "arms":
                wrong.append(_arm_in_stage(ref))
            wrong += self._missing_seeds(ref)
        wrong += self._cycles()
        yield from wrong or self._unused()

    def _unknown(self, ref: StageRef) -> PydanticCustomError:
        group, name = ref.of
        noun, other = group.removesuffix("s"), "stage" if group == "arms" else "arm"
        if name in (self.stages if group == "arms" else self.arms):
            hint = f"`{clipped(name)}` is {'a stage' if other == 'stage' else 'an arm'}: "
            hint += f"write `{{{other}: {clipped(name)}}}`"
        elif group == "stages" and not self.stages:
            hint = f"the recipe has no stages: add `stages: {{{clipped(name)}: {{…}}}}`"
        else:
            hint = choice(name, self.arms if group == "arms" else self.stages, label=group)
        message = f"there is no {noun} `{clipped(name)}`"
        return validation_error(message, code="MIM-R021", at=(*ref.path, noun), hint=hint)

    def _missing_seeds(self, ref: StageRef) -> Iterator[PydanticCustomError]:
        """Yield the seeds a harvester needs that the harvested training does not have."""
        group, name = ref.of
        noun, own = group.removesuffix("s"), self.stages[name] if group == "stages" else None
        trained = self.seeds if own is None else own
        whose = "the recipe's seeds" if own is None else "the seeds"
        trained_on = f"`{clipped(name)}` is trained on {whose} {_some(trained)}"
        if isinstance(ref.seeds, tuple):
            for index, seed in enumerate(ref.seeds):
                if seed not in trained:
                    message = f"the {noun} `{clipped(name)}` has no seed {seed}"
                    at = (*ref.path, "seeds", index)
                    yield validation_error(message, code="MIM-R022", at=at, hint=trained_on)
            return
        needed = self.stages.get(ref.by[1]) if ref.by[0] == "stages" else None
        if ref.seeds == "own" and own is None and not set(needed or ()) <= set(trained):
            stage = clipped(ref.by[1])
            message = f"the stage `{stage}` has the seeds {_some(needed or ())}, but {trained_on}"
            hint = f"give `{clipped(name)}` its own `seeds`, or harvest `seeds: all`"
            yield validation_error(message, code="MIM-R023", at=(*ref.path, noun), hint=hint)

    def _cycles(self) -> Iterator[PydanticCustomError]:
        """Yield the cycles of references; no stage is in two of them."""
        dependencies, order = self.dependencies(), self.nodes.index
        while True:
            try:
                TopologicalSorter(dependencies).prepare()
            except CycleError as error:
                # graphlib lists a cycle from the harvested node to the harvester and repeats one node
                cycle: list[Node] = list(reversed(error.args[1][1:]))
            else:
                return
            start = cycle.index(min(cycle, key=order))
            cycle = cycle[start:] + cycle[:start]
            dependencies |= dict.fromkeys(cycle, ())
            yield self._cycle(cycle)

    def _cycle(self, cycle: list[Node]) -> PydanticCustomError:
        harvester, (group, name) = cycle[-1], cycle[0]
        chain = [clipped(node_name, 30) for _, node_name in (*cycle, cycle[0])]
        if len(chain) > _MAX_SHOWN:
            chain = [*chain[: _MAX_SHOWN - 2], "…", chain[-1]]
        path = next(ref.path for ref in self.refs if (ref.by, ref.of) == (harvester, cycle[0]))
        noun = group.removesuffix("s")
        hint = f"{noun}s are trained one after another: remove one of these references"
        if len(cycle) == 1:
            hint = "harvest another stage, which is trained first"
        message = f"the {noun} `{clipped(name)}` harvests itself: {' → '.join(chain)}"
        return validation_error(message, code="MIM-R024", at=(*path, noun), hint=hint)

    def _unused(self) -> Iterator[PydanticCustomError]:
        """Yield the stages that no arm harvests, directly or through other stages."""
        dependencies, used = self.dependencies(), set[Node]()
        waiting: list[Node] = [("arms", arm) for arm in self.arms]
        while waiting:
            node = waiting.pop()
            if node not in used:
                used.add(node)
                waiting += dependencies.get(node, ())
        for stage in self.stages:
            if ("stages", stage) not in used:
                example = f"covariance: {{type: filters, from: {{stage: {stage}}}}}"
                hint = f"harvest it in a rule of an arm, `{example}`, or remove it"
                message = f"the stage `{clipped(stage)}` is never used"
                yield validation_error(message, code=UNUSED_STAGE, at=("stages", stage), hint=hint)


def stages_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the stages that rules harvest, each once, in the order of the rules."""
    return tuple(dict.fromkeys(o.stage for _, o in origins(tuple(rules)) if o.stage is not None))


def origins(value: object, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], TrainedRef]]:
    """Yield the trained networks that sections refer to, with the recipe keys that lead there."""
    return values_in(value, TrainedRef, path)


def values_in(
    value: object, kind: type[T], path: tuple[Step, ...] = ()
) -> Iterator[tuple[tuple[Step, ...], T]]:
    """Yield what is of a type inside a value, itself included, with the recipe keys that lead there."""
    if isinstance(value, kind):
        yield path, value
    items: Iterable[tuple[Step, object]] = ()
    if isinstance(value, Section):
        items = entries_of(value)
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    for step, item in items:
        yield from values_in(item, kind, (*path, step))


def stage_refs(by: Node, rules: tuple[Rule, ...]) -> Iterator[StageRef]:
    """Yield the references of an arm's or a stage's rules."""
    for path, origin in origins(rules, (*by, "init")):
        if origin.stage is not None:
            yield StageRef(by, ("stages", origin.stage), path, origin.seeds)
        elif origin.arm is not None:
            yield StageRef(by, ("arms", origin.arm), path, origin.seeds)


def _arm_in_stage(ref: StageRef) -> PydanticCustomError:
    """Return the error that a stage harvests an arm: stages outlive a study, its arms do not."""
    stage, arm = clipped(ref.by[1]), clipped(ref.of[1])
    message = f"the stage `{stage}` harvests the arm `{arm}`, but stages are trained before the arms"
    hint = "describe that training under `stages`, and harvest it there"
    return validation_error(message, code="MIM-R025", at=(*ref.path, "arm"), hint=hint)


def _some(seeds: tuple[int, ...]) -> str:
    listed = ", ".join(str(seed) for seed in seeds[:_MAX_SHOWN])
    return f"{listed}, …" if len(seeds) > _MAX_SHOWN else listed
