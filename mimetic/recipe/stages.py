"""Who harvests whom: the order stages and arms are trained in, and what cannot be trained at all.

Read twice by the same rules: from the tree of a recipe, so that its mistakes are told together with
those of the schema, and from finished sections, which may have been built by hand.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mimetic.config.base import Section
from mimetic.config.errors import Step, clipped
from mimetic.config.suggest import choice
from mimetic.covariance.config import TrainedRef
from mimetic.recipe.rule import Rule

_LONGEST_CHAIN = 8

Node = tuple[str, str]
"""An arm or a stage: ("arms", "transfer")."""


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a stage or an arm is harvested.

    Attributes:
        by: The arm or the stage that harvests.
        of: The stage or the arm that is harvested.
        path: Keys from the recipe to the `from` that says so.
        seeds: The seeds it asks for: `own`, `all` or numbers; None where that is not understood.
    """

    by: Node
    of: Node
    path: tuple[Step, ...]
    seeds: str | tuple[int, ...] | None = "own"


@dataclass(frozen=True, slots=True)
class StageGraph:
    """All of a recipe that decides which stages are trained, and on which seeds.

    Attributes:
        arms: Names of the arms.
        stages: Seeds of each stage; None for the recipe's, empty where they are not understood.
        seeds: The recipe's seeds; empty where they are not understood.
        uses: Who harvests what.
    """

    arms: Sequence[str]
    stages: Mapping[str, tuple[int, ...] | None]
    seeds: tuple[int, ...]
    uses: Sequence[Use]


@dataclass(frozen=True, slots=True)
class StageRefError:
    """A mistake in who harvests what.

    Attributes:
        message: What is wrong.
        path: Keys from the recipe to the value at fault.
        hint: The repair.
    """

    message: str
    path: tuple[Step, ...]
    hint: str


def stages_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the stages that rules harvest, each once, in the order of the rules."""
    return tuple(dict.fromkeys(o.stage for _, o in origins(tuple(rules)) if o.stage is not None))


def node_of(*, stage: Any, arm: Any) -> Node | None:
    """Return which training of the recipe an origin names; None where it names another network."""
    if isinstance(stage, str):
        return "stages", stage
    return ("arms", arm) if isinstance(arm, str) else None


def origins(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], TrainedRef]]:
    """Yield the trained networks that sections speak of, with the keys of the language that lead there."""
    if isinstance(value, TrainedRef):
        yield path, value
    elif isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            key = name if field.alias is None else field.alias
            yield from origins(getattr(value, name), (*path, key))
    elif isinstance(value, tuple | list | Mapping):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for step, item in items:
            yield from origins(item, (*path, step))


def ordered(harvesting: StageGraph) -> tuple[str, ...]:
    """Return the stages in an order in which they can be trained: harvested ones before their harvesters."""
    order = TopologicalSorter(_needs(harvesting)).static_order()
    return tuple(name for group, name in order if group == "stages")


def waves(harvesting: StageGraph) -> tuple[tuple[Node, ...], ...]:
    """Return stages and arms in waves: each needs only those of the waves before it, so it trains at once."""
    sorter = TopologicalSorter(_needs(harvesting))
    sorter.prepare()
    found: list[tuple[Node, ...]] = []
    places = {node: place for place, node in enumerate(_nodes(harvesting))}
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(tuple(sorted(ready, key=places.__getitem__)))
        sorter.done(*ready)
    return tuple(found)


def misuses(harvesting: StageGraph) -> list[StageRefError]:
    """Return what is wrong with the trainings that are harvested, whether or not the rest is right."""
    known = set(_nodes(harvesting))
    found = [_unknown(use, harvesting) for use in harvesting.uses if use.of not in known]
    for use in harvesting.uses:
        if use.of in known:
            found += [*_out_of_turn(use), *_without_seeds(use, harvesting)]
    return [*found, *_circles(harvesting)]


def unused(harvesting: StageGraph) -> list[StageRefError]:
    """Return the stages that no arm harvests, neither directly nor through other stages."""
    needs, used = _needs(harvesting), set[Node]()
    waiting: list[Node] = [("arms", arm) for arm in harvesting.arms]
    while waiting:
        node = waiting.pop()
        if node not in used:
            used.add(node)
            waiting += needs.get(node, ())
    return [
        StageRefError(
            f"the stage `{clipped(stage)}` is never used",
            ("stages", stage),
            f"harvest it in a rule of an arm, `covariance: {{type: filters, from: {{stage: {stage}}}}}`, "
            "or remove it",
        )
        for stage in harvesting.stages
        if ("stages", stage) not in used
    ]


def _nodes(harvesting: StageGraph) -> tuple[Node, ...]:
    """Return the stages, then the arms."""
    stages: list[Node] = [("stages", name) for name in harvesting.stages]
    return (*stages, *(("arms", name) for name in harvesting.arms))


def _needs(harvesting: StageGraph) -> dict[Node, tuple[Node, ...]]:
    """Return what each stage and arm harvests, each once."""
    needs: dict[Node, dict[Node, None]] = {node: {} for node in _nodes(harvesting)}
    for use in harvesting.uses:
        if use.of in needs and use.by in needs:
            needs[use.by][use.of] = None
    return {node: tuple(others) for node, others in needs.items()}


def _unknown(use: Use, harvesting: StageGraph) -> StageRefError:
    group, name = use.of[0], clipped(use.of[1])
    noun = group.removesuffix("s")
    if group == "arms":
        hint = choice(use.of[1], harvesting.arms, label="arms")
        if use.of[1] in harvesting.stages:
            hint = f"`{name}` is a stage: write `{{stage: {name}}}`"
    elif use.of[1] in harvesting.arms:
        hint = f"`{name}` is an arm: write `{{arm: {name}}}`"
    elif not harvesting.stages:
        hint = f"the recipe has no stages: add `stages: {{{name}: {{…}}}}`"
    else:
        hint = choice(use.of[1], harvesting.stages, label="stages")
    return StageRefError(f"there is no {noun} `{name}`", (*use.path, noun), hint)


def _out_of_turn(use: Use) -> list[StageRefError]:
    """Return the arm that a stage asks for: stages outlive a study, and its arms do not."""
    if use.by[0] == "arms" or use.of[0] == "stages":
        return []
    name = clipped(use.of[1])
    message = f"the stage `{clipped(use.by[1])}` begins from the arm `{name}`; stages come before the arms"
    return [
        StageRefError(
            message, (*use.path, "arm"), "describe that training under `stages`, and harvest it there"
        )
    ]


def _without_seeds(use: Use, harvesting: StageGraph) -> list[StageRefError]:
    """Return the seeds a harvester asks for and the training it harvests does not have."""
    group, name = use.of
    noun = group.removesuffix("s")
    own = harvesting.stages[name] if group == "stages" else None
    has = harvesting.seeds if own is None else own
    if not has:
        return []
    whose = "recipe's seeds" if own is None else "seeds"
    its = f"`{clipped(name)}` is trained on the {whose} {_some(has)}"
    if isinstance(use.seeds, tuple):
        return [
            StageRefError(
                f"the {noun} `{clipped(name)}` has no seed {seed}", (*use.path, "seeds", index), its
            )
            for index, seed in enumerate(use.seeds)
            if seed >= 0 and seed not in has
        ]
    wanted = harvesting.stages.get(use.by[1]) if use.by[0] == "stages" else None
    lacking = [] if wanted is None else [seed for seed in wanted if seed not in has]
    if use.seeds != "own" or own is not None or not lacking:
        return []
    message = f"the stage `{clipped(use.by[1])}` has the seeds {_some(tuple(wanted or ()))}, "
    hint = f"give `{clipped(name)}` `seeds` of its own, or harvest `seeds: all`"
    return [StageRefError(f"{message}but {its}", (*use.path, noun), hint)]


def _some(seeds: tuple[int, ...]) -> str:
    shown = ", ".join(str(seed) for seed in seeds[:_LONGEST_CHAIN])
    return f"{shown}, …" if len(seeds) > _LONGEST_CHAIN else shown


def _circles(harvesting: StageGraph) -> Iterator[StageRefError]:
    """Yield the circles of trainings that harvest one another, none in two of them."""
    needs = _needs(harvesting)
    places = {node: place for place, node in enumerate(needs)}
    while True:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            # graphlib lists a circle from the harvested to the harvester and names one node twice.
            circle = list(reversed(error.args[1][1:]))
        else:
            return
        first = circle.index(min(circle, key=places.__getitem__))
        circle = circle[first:] + circle[:first]
        for node in circle:
            needs[node] = ()
        yield _circle(circle, harvesting)


def _circle(circle: list[Node], harvesting: StageGraph) -> StageRefError:
    harvester, harvested = circle[-1], circle[0]
    chain = [clipped(name, 30) for _, name in (*circle, harvested)]
    if len(chain) > _LONGEST_CHAIN:
        chain = [*chain[: _LONGEST_CHAIN - 2], "…", chain[-1]]
    path = next(u.path for u in harvesting.uses if (u.by, u.of) == (harvester, harvested))
    noun = harvested[0].removesuffix("s")
    hint = f"{noun}s are trained one after another: let one of them begin without the others"
    if len(circle) == 1:
        hint = f"{'an' if noun == 'arm' else 'a'} {noun} cannot begin from its own result: harvest another "
        hint += "stage, whose training comes first"
    message = f"the {noun} `{clipped(harvested[1])}` harvests itself: {' → '.join(chain)}"
    return StageRefError(message, (*path, noun), hint)
