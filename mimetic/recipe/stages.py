"""Who harvests which stage: the order stages are trained in, and what cannot be trained at all.

Read twice by the same rules: from the tree of a recipe, so that its mistakes are told together with
those of the schema, and from finished sections, which may have been built by hand.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mimetic.recipe.base import Section
from mimetic.recipe.errors import Step, clipped
from mimetic.recipe.measured import Origin
from mimetic.recipe.rule import Rule
from mimetic.recipe.suggest import choice

_LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a stage is harvested.

    Attributes:
        by: The arm or the stage that harvests, e.g. ("arms", "transfer").
        stage: Name of the stage that is harvested.
        path: Keys from the recipe to the `from` that says so.
        seeds: The seeds it asks for: `own`, `all` or numbers; None where that is not understood.
    """

    by: tuple[str, str]
    stage: str
    path: tuple[Step, ...]
    seeds: str | tuple[int, ...] | None = "own"


@dataclass(frozen=True, slots=True)
class Harvesting:
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
class Misuse:
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


def origins(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Origin]]:
    """Yield the trained networks that sections speak of, with the keys of the language that lead there."""
    if isinstance(value, Origin):
        yield path, value
    elif isinstance(value, Section):
        for name, field in type(value).model_fields.items():
            key = name if field.alias is None else field.alias
            yield from origins(getattr(value, name), (*path, key))
    elif isinstance(value, tuple | list | Mapping):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for step, item in items:
            yield from origins(item, (*path, step))


def ordered(harvesting: Harvesting) -> tuple[str, ...]:
    """Return the stages in an order in which they can be trained: harvested ones before their harvesters."""
    return tuple(TopologicalSorter(_needs(harvesting)).static_order())


def misuses(harvesting: Harvesting) -> list[Misuse]:
    """Return what is wrong with the stages that are harvested, whether or not the rest is right."""
    found = [_unknown(use, harvesting) for use in harvesting.uses if use.stage not in harvesting.stages]
    for use in harvesting.uses:
        if use.stage in harvesting.stages:
            found += _without_seeds(use, harvesting)
    return [*found, *_circles(harvesting)]


def unused(harvesting: Harvesting) -> list[Misuse]:
    """Return the stages that no arm harvests, neither directly nor through other stages."""
    needs, used = _needs(harvesting), set[str]()
    waiting = [use.stage for use in harvesting.uses if use.by[0] == "arms"]
    while waiting:
        stage = waiting.pop()
        if stage in needs and stage not in used:
            used.add(stage)
            waiting += needs[stage]
    return [
        Misuse(
            f"the stage `{clipped(stage)}` is never used",
            ("stages", stage),
            f"harvest it in a rule of an arm, `covariance: {{type: filters, from: {{stage: {stage}}}}}`, "
            "or remove it",
        )
        for stage in harvesting.stages
        if stage not in used
    ]


def _needs(harvesting: Harvesting) -> dict[str, tuple[str, ...]]:
    """Return the stages each stage harvests."""
    needs: dict[str, dict[str, None]] = {stage: {} for stage in harvesting.stages}
    for use in harvesting.uses:
        if use.by[0] == "stages" and use.stage in needs:
            needs[use.by[1]][use.stage] = None
    return {stage: tuple(others) for stage, others in needs.items()}


def _unknown(use: Use, harvesting: Harvesting) -> Misuse:
    name = clipped(use.stage)
    if use.stage in harvesting.arms:
        hint = f"`{name}` is an arm, and only stages are harvested: describe that training under `stages`"
    elif not harvesting.stages:
        hint = f"the recipe has no stages: add `stages: {{{name}: {{…}}}}`"
    else:
        hint = choice(use.stage, harvesting.stages, label="stages")
    return Misuse(f"there is no stage `{name}`", (*use.path, "stage"), hint)


def _without_seeds(use: Use, harvesting: Harvesting) -> list[Misuse]:
    """Return the seeds a harvester asks for and the stage is not trained on."""
    own = harvesting.stages[use.stage]
    has = harvesting.seeds if own is None else own
    if not has:
        return []
    whose = "recipe's seeds" if own is None else "seeds"
    its = f"`{clipped(use.stage)}` is trained on the {whose} {_some(has)}"
    if isinstance(use.seeds, tuple):
        return [
            Misuse(f"the stage `{clipped(use.stage)}` has no seed {seed}", (*use.path, "seeds", index), its)
            for index, seed in enumerate(use.seeds)
            if seed >= 0 and seed not in has
        ]
    wanted = harvesting.stages.get(use.by[1]) if use.by[0] == "stages" else None
    lacking = [] if wanted is None else [seed for seed in wanted if seed not in has]
    if use.seeds != "own" or own is not None or not lacking:
        return []
    message = f"the stage `{clipped(use.by[1])}` has the seeds {_some(tuple(wanted or ()))}, "
    hint = f"give `{clipped(use.stage)}` `seeds` of its own, or harvest `seeds: all`"
    return [Misuse(f"{message}but {its}", (*use.path, "stage"), hint)]


def _some(seeds: tuple[int, ...]) -> str:
    shown = ", ".join(str(seed) for seed in seeds[:_LONGEST_CHAIN])
    return f"{shown}, …" if len(seeds) > _LONGEST_CHAIN else shown


def _circles(harvesting: Harvesting) -> Iterator[Misuse]:
    """Yield the circles of stages that harvest one another, no stage in two of them."""
    needs = _needs(harvesting)
    names = list(needs)
    while True:
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            # graphlib lists a circle from the harvested to the harvester and names one stage twice.
            circle = list(reversed(error.args[1][1:]))
        else:
            return
        first = circle.index(min(circle, key=names.index))
        circle = circle[first:] + circle[:first]
        for stage in circle:
            needs[stage] = ()
        yield _circle(circle, harvesting)


def _circle(circle: list[str], harvesting: Harvesting) -> Misuse:
    harvester, harvested = circle[-1], circle[0]
    chain = [clipped(name, 30) for name in (*circle, harvested)]
    if len(chain) > _LONGEST_CHAIN:
        chain = [*chain[: _LONGEST_CHAIN - 2], "…", chain[-1]]
    path = next(u.path for u in harvesting.uses if u.by == ("stages", harvester) and u.stage == harvested)
    hint = "stages are trained one after another: let one of them begin without the others"
    if len(circle) == 1:
        hint = "a stage cannot begin from its own result: harvest another stage, whose training comes first"
    message = f"the stage `{clipped(harvested)}` harvests itself: {' → '.join(chain)}"
    return Misuse(message, (*path, "stage"), hint)
