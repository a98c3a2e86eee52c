"""The content of an arm or a stage: everything but the seed that the results of its trials depend on.

Trials of the same content and seed have the same weights. By it a study that grows finds what is trained
already, `--reuse` finds trials of other studies, and stages have their folders.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path

from pydantic.main import IncEx

from mimetic.covariance.config import CovarianceFile
from mimetic.covariance.trained_ref import AttentionRef
from mimetic.files import expand_home, file_digest
from mimetic.models.config import PythonModel
from mimetic.plans.plan import Plan
from mimetic.recipe.recipe import Arm, Recipe
from mimetic.recipe.stages import Node, origins, stages_of, values_in
from mimetic.sources.find import harvested_seeds
from mimetic.sources.trained import LEARNED
from mimetic.train.checkpoint import WEIGHTS

_NAMES: IncEx = {"__all__": {"id", "expect"}}
_WITHOUT_EFFECT: IncEx = {
    "init": _NAMES,
    "surgery": _NAMES,
    "train": {"device", "checkpoint"},
    "learner": {"device"},
    "unmatched": True,
}
"""Parts of an arm that change no result."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the trials of an arm depend on besides their seed, as digests.

    Attributes:
        section: The arm's section, without what changes no result.
        data: Its examples.
        plan: How its parameters are initialized.
        files: The files that it takes covariances, trained networks or models from.
        upstream: The trainings of this recipe that it harvests, and on which seeds.
    """

    section: str
    data: str
    plan: str
    files: str
    upstream: str

    @property
    def key(self) -> str:
        """Return one digest of all parts."""
        return _digest(asdict(self).values(), size=16)


def arm_contents(recipe: Recipe, plans: Mapping[str, Plan], digests: Mapping[str, str]) -> dict[str, Content]:
    """Return the content of each arm.

    `digests` are those of the data of arms and stages, by `arms/name` and `stages/name`.
    """
    keys: dict[Node, str] = {("stages", name): key for name, key in stage_names(recipe, digests).items()}
    found = {}
    for group, name in chain.from_iterable(recipe.generations()):
        if group == "stages":
            continue
        arm = recipe.arms[name]
        refs = [ref for _, ref in origins(arm.init)]
        nodes = [("stages", ref.stage) if ref.arm is None else ("arms", ref.arm) for ref in refs]
        upstream = [keys[group, other] for group, other in nodes if other is not None]
        found[name] = Content(
            section=section_digest(arm),
            data=digests[f"arms/{name}"],
            plan=plans[name].content if name in plans else "",
            files=_digest(_files(recipe, arm)),
            upstream=_digest([*upstream, *_seeds(recipe, arm)]),
        )
        keys["arms", name] = found[name].key
    return {name: found[name] for name in recipe.arms}


def section_digest(arm: Arm) -> str:
    """Return a digest of what in an arm's section affects its results."""
    return _digest([arm.model_dump_json(by_alias=True, exclude=_WITHOUT_EFFECT)])


def stage_names(recipe: Recipe, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the name of the folder of each stage, which has its content, those harvested by others first."""
    found: dict[str, str] = {}
    for name in recipe.stage_order():
        stage = recipe.stages[name]
        parts = [stage.model_dump_json(by_alias=True, exclude={"seeds"}), digests[f"stages/{name}"]]
        parts += [found[other] for other in closure(recipe, name)]
        parts += [*_seeds(recipe, stage), *_files(recipe, stage)]
        found[name] = f"{name}-{_digest(parts, size=6)}"
    return found


def closure(recipe: Recipe, name: str) -> list[str]:
    """Return the stages a stage harvests, directly or through others, in the recipe's order."""
    needed: set[str] = set()
    waiting = list(stages_of(recipe.stages[name].init))
    while waiting:
        other = waiting.pop()
        if other not in needed:
            needed.add(other)
            waiting += stages_of(recipe.stages[other].init)
    return [other for other in recipe.stage_order() if other in needed]


def _seeds(recipe: Recipe, arm: Arm) -> Iterator[str]:
    """Yield the seeds of each training that is harvested; -1 is the trial's own."""
    for _, ref in origins(arm.init):
        if ref.stage is not None or ref.arm is not None:
            yield str(harvested_seeds(recipe, ref, own=-1))


def _files(recipe: Recipe, arm: Arm) -> Iterator[str]:
    """Yield the digest of each file that an arm is made from."""
    paths = [Path(file.path) for _, file in values_in(arm.init, CovarianceFile)]
    paths += [expand_home(ref.file) for _, ref in values_in(arm.init, AttentionRef) if ref.file is not None]
    for _, ref in origins(arm.init):
        paths += [expand_home(file) for file in (ref.checkpoint, ref.tensors) if file is not None]
        folder = recipe.run_folders.get(ref.run) if ref.run is not None else ref.trial
        if folder is not None:
            paths += [Path(folder) / name for name in (WEIGHTS, LEARNED)]
    for _, model in values_in(arm, PythonModel):  # planned, so its module is imported
        module = sys.modules.get(model.call.partition(":")[0])
        paths.append(Path(getattr(module, "__file__", None) or ""))
    for path in paths:
        if path.is_file():
            yield file_digest(path)


def _digest(parts: Iterable[str], *, size: int = 8) -> str:
    return blake2b("\n".join(parts).encode(), digest_size=size).hexdigest()
