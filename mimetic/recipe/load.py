"""Load a recipe: text → layers → arms and stages → validated sections, with all errors at once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from os.path import normpath, realpath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mimetic.config.errors import Issue, IssueList, RecipeError, clipped
from mimetic.config.text import yaml_source
from mimetic.config.text.tree import Map, NodePosition, plain, shown, wrapped
from mimetic.errors import UserError
from mimetic.recipe.compose.composition import MAIN_ARM, Composition
from mimetic.recipe.compose.group import ARMS, RECIPE
from mimetic.recipe.compose.layer import check_version, checked_layer, named_entries
from mimetic.recipe.compose.overrides import layer_of, ordered, without_effect
from mimetic.recipe.compose.sweep import with_candidates
from mimetic.recipe.recipe import Provenance, Recipe
from mimetic.recipe.stages import UNUSED_STAGE
from mimetic.recipe.validate.costs import cost_issues
from mimetic.recipe.validate.messages import issues_of
from mimetic.recipe.validate.outside import outside_issues

Source = str | PathLike[str] | Mapping[str, Any] | Recipe

MAX_FILES = 20
"""Maximum number of files of one recipe, including those it extends."""


def load(source: Source, *, overrides: Sequence[str] = (), untrusted: bool = False) -> Recipe:
    """Load a recipe.

    Args:
        source: Path of a recipe, a mapping of the same form, or a loaded recipe, which is returned as it is.
        overrides: Changes such as "train.epochs=5", applied on top of the recipe; their order has no effect.
        untrusted: Refuse whatever reaches outside of the recipe: other files, downloads, code.

    Returns:
        The recipe, every arm complete.

    Raises:
        RecipeError: With all errors at once, each with its position and a repair.
        UserError: If it is none of these, or a loaded recipe is to be overridden.
    """
    if isinstance(source, Recipe):
        if overrides:
            message = "a loaded recipe cannot be overridden: pass its path or mapping"
            raise UserError(message, code="MIM-R031")
        return source
    reading = _Reading(untrusted=untrusted)
    if isinstance(source, Mapping):
        reading.add_mapping(source)
        stem = "recipe"
    else:
        path = _path(source)
        if "\n" in path:
            message = "this is the text of a recipe, not its path: use `mimetic.recipe.load.loads`"
            raise UserError(message, code="MIM-R032")
        reading.add_file(Path(path), name=path)
        stem = Path(path).stem
    return _composed(reading, stem, overrides)


def _path(source: object) -> str:
    path = fspath(source) if isinstance(source, str | PathLike) else None
    if isinstance(path, str):
        return path
    raise UserError(
        f"a recipe is a path, a mapping or a loaded recipe, found {shown(source)}; "
        "text is read by `mimetic.recipe.load.loads`",
        code="MIM-R048",
    )


def loads(text: str, *, file: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from its text.

    The files it extends are relative to `file`, its name in messages. Overrides are as in `load`.

    Raises:
        RecipeError: As `load`.
    """
    reading = _Reading()
    reading.add_text(text, Path(file), name=file)
    return _composed(reading, Path(file).stem, overrides)


def _composed(reading: "_Reading", stem: str, overrides: Sequence[str]) -> Recipe:
    """Compose and validate the layers that were read."""
    # 1. Sweeps become arms, then each override is one more layer.
    issues, files = reading.issues, reading.layers
    applied, notes = ordered(overrides, issues), list[str]()
    unreadable = {issue.path for issue in issues if issue.path}
    if "name" not in files[-1]:
        files[-1].put("name", _as_name(stem), NodePosition(("name",), files[-1].here.value))
    layers, hidden = with_candidates(files, issues, selects=_selects(files))
    composition = Composition(_with_overrides(layers, applied, issues, notes), issues, hidden)
    # 2. The composed tree is validated, and what all arms share even where no arm uses it.
    tree = composition.tree()
    notes += without_effect(applied, tree)
    shared_issues = _issues_of_shared(composition)
    recipe, invalid = _validated(tree)
    if issues or shared_issues:  # a stage may seem unused because of these
        invalid = [issue for issue in invalid if issue.code != UNUSED_STAGE]
    elif _only_unused(invalid):
        # inherited stages that nothing harvests are left out
        removable = _unused(invalid) - _required_stages(files, overrides)
        stages = tree["stages"].without(*removable)
        tree = tree.without("stages")
        recipe, invalid = _validated(tree.put("stages", stages, stages.here) if stages else tree)
    # a value that could not be parsed was replaced by a dummy: its validation errors are meaningless
    issues += [issue for issue in (*shared_issues, *invalid) if issue.path not in unreadable]
    # 3. Only a valid recipe has costs, and reaches outside.
    if not issues and recipe is not None:
        recipe._provenance = Provenance(tree, reading.sources, (*notes, *recipe.same_experiments()))  # noqa: SLF001
        issues += cost_issues(recipe)
        issues += outside_issues(recipe) if reading.untrusted else []
    if issues or recipe is None:
        raise RecipeError(issues)
    return recipe


def _validated(tree: Map) -> tuple[Recipe | None, list[Issue]]:
    try:
        return Recipe.model_validate(plain(tree)), []
    except ValidationError as error:
        return None, issues_of(error.errors(include_url=False), tree, RECIPE)


def _unused(issues: Iterable[Issue]) -> set[str]:
    """Return the names of the stages that nothing harvests."""
    return {str(issue.path[1]) for issue in issues if issue.code == UNUSED_STAGE}


def _only_unused(issues: Sequence[Issue]) -> bool:
    return bool(issues) and all(issue.code == UNUSED_STAGE for issue in issues)


def _required_stages(files: Sequence[Map], overrides: Sequence[str]) -> set[str]:
    """Return the stages that must be harvested: the file's own, unless an override made them unused."""
    own = set(files[-1].get("stages", ()))
    if not own or not overrides:
        return own
    _, issues = _validated(Composition(files, []).tree())
    return own & _unused(issues) if not issues or _only_unused(issues) else own


def _with_overrides(
    files: Sequence[Map], overrides: Sequence[tuple[int, str]], issues: list[Issue], notes: list[str]
) -> list[Map]:
    layers = list(files)
    for number, text in overrides:
        layer = layer_of(text, number, Composition(layers, []), issues, notes)
        if layer is not None:
            layers.append(checked_layer(layer, issues))
    return layers


def _selects(files: Sequence[Map]) -> bool:
    """Return whether candidates are chosen among."""
    studies = [layer["study"] for layer in files if isinstance(layer.get("study"), Map)]
    return any(study.get("select") is not None for study in studies)


def _as_name(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:80]
    return name if name else "recipe"


def _issues_of_shared(composition: Composition) -> list[Issue]:
    """Return the errors in what all arms share, even where every arm replaces it."""
    shared = composition.shared(ARMS)
    # as the only arm of a recipe: pydantic would build the validator of a lone arm from scratch
    arms = Map(shared.here).put(MAIN_ARM, shared, shared.here)
    tree = Map(shared.here).put("name", MAIN_ARM, shared.here).put(ARMS.key, arms, shared.here)
    try:
        Recipe.model_validate(plain(tree))
    except ValidationError as error:
        errors = [found for found in error.errors(include_url=False) if found["loc"]]  # () is of the stages
        return issues_of(errors, tree, RECIPE, complete=False)
    return []


@dataclass(slots=True)
class _Reading:
    """Reads the files of one recipe depth first: a file's layer comes after those it extends."""

    issues: list[Issue] = field(default_factory=IssueList)
    layers: list[Map] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)
    open: list[tuple[Path, str]] = field(default_factory=list)
    untrusted: bool = False

    def add_mapping(self, source: Mapping[str, Any]) -> None:
        tree = named_entries(wrapped(source))
        if "recipe" in tree:
            check_version(tree, self.issues)
        self._add(tree, Path())

    def add_file(self, path: Path, *, name: str) -> None:
        self.add_text(yaml_source.read(path, name=name), path, name=name)

    def add_text(self, text: str, path: Path, *, name: str) -> None:
        self.sources[name] = text
        self.seen.add(Path(realpath(path)))
        tree = named_entries(yaml_source.parse(text, file=name, issues=self.issues))
        check_version(tree, self.issues)
        self.open.append((Path(realpath(path)), name))
        self._add(tree, path.parent)
        self.open.pop()

    def _add(self, tree: Map, folder: Path) -> None:
        layer = checked_layer(tree, self.issues)
        for name, spot in layer["extends"].entries() if "extends" in layer else ():
            self._extend(name, spot, folder)
        self.layers.append(layer)

    def _extend(self, name: str, at: NodePosition, folder: Path) -> None:
        if self.untrusted:
            self._note("an untrusted recipe may not read other files", at, "merge them into one", "MIM-R036")
            return
        if "\0" in name or name == "":
            self._note(f"{name!r} is not a path", at, None, "MIM-R033")
            return
        path = Path(normpath(folder / name))
        resolved = Path(realpath(path))  # a loop of links is an error when it is read
        if resolved in (above := [file for file, _ in self.open]):
            loop = [*(shown for _, shown in self.open[above.index(resolved) :]), str(path)]
            message = f"the file extends itself: {' → '.join(loop)}"
            self._note(message, at, "remove one of these `extends`", "MIM-R034")
        elif len(self.seen) >= MAX_FILES:
            self._note(f"a recipe may extend {MAX_FILES - 1} files at most", at, None, "MIM-R035")
        elif resolved not in self.seen:  # reading a file twice would undo the layers in between
            self._read_below(path, at)

    def _read_below(self, path: Path, at: NodePosition) -> None:
        """Read an extended file; if it is unreadable, the error belongs to the file that extends it."""
        above = len(self.layers)
        try:
            self.add_file(path, name=str(path))
        except RecipeError as error:
            whole = [issue for issue in error.issues if issue.mark is not None and issue.mark.line == 0]
            if not whole:
                raise
            self._note(f"`{clipped(str(path))}`: {whole[0].message}", at, whole[0].hint, whole[0].code)
            return
        for index in range(above, len(self.layers)):
            # name and description belong to the extended file only
            self.layers[index] = self.layers[index].without("name", "description")

    def _note(self, message: str, at: NodePosition, hint: str | None, code: str) -> None:
        self.issues.append(Issue(message, at.path, at.value, hint, code=code))
