"""Load a recipe: text → layers → arms and stages → validated sections, with every mistake at once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from os.path import normpath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mimetic.config.errors import FilePosition, Issue, RecipeError, clipped
from mimetic.config.text import yaml_source
from mimetic.config.text.tree import Map, NodePosition, plain, wrapped
from mimetic.errors import UserError
from mimetic.recipe.reading.compose import Composition
from mimetic.recipe.reading.group import ARMS, RECIPE
from mimetic.recipe.reading.harvests import idle_stages, issues_of_stages, unused_stages, without_stages
from mimetic.recipe.reading.layer import check_version, checked_layer, named_entries
from mimetic.recipe.reading.overrides import layer_of
from mimetic.recipe.reading.problems import issues_of
from mimetic.recipe.recipe import Arm, Recipe, Written

Source = str | PathLike[str] | Mapping[str, Any] | Recipe

MAX_FILES = 20
"""Most files of one recipe, those it extends included."""


def load(source: Source, *, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe.

    Args:
        source: Path of a recipe, a mapping of the same form, or a loaded recipe, which is returned as it is.
        overrides: Changes such as "train.epochs=5", applied in order on top of the recipe.

    Returns:
        The recipe, every arm complete.

    Raises:
        RecipeError: With every mistake at once, each with its place and a repair.
        UserError: If a loaded recipe is to be overridden.
    """
    if isinstance(source, Recipe):
        if overrides:
            raise UserError("a loaded recipe cannot be overridden: give its path or mapping")
        return source
    reading = _Reading()
    if isinstance(source, Mapping):
        reading.add_mapping(source)
        stem = "recipe"
    else:
        path = fspath(source)
        if "\n" in path:
            raise UserError("this is the text of a recipe, not its path: use `mimetic.recipe.loads`")
        reading.add_file(Path(path), name=path)
        stem = Path(path).stem
    return _composed(reading, stem, overrides)


def loads(text: str, *, file: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from its text.

    Args:
        text: The text, as it would stand in a file.
        file: What messages call it; files it extends are looked for beside it.
        overrides: As in `load`.

    Raises:
        RecipeError: As `load`.
    """
    reading = _Reading()
    reading.add_text(text, Path(file), name=file)
    return _composed(reading, Path(file).stem, overrides)


def _composed(reading: "_Reading", stem: str, overrides: Sequence[str]) -> Recipe:
    issues, files = reading.issues, reading.layers
    reported = {issue.path for issue in issues if issue.path}
    if "name" not in files[-1]:
        files[-1].put("name", _as_name(stem), NodePosition(("name",), files[-1].here.value))
    composition = Composition(_with_overrides(files, overrides, issues), issues)
    tree = composition.tree()
    found = [*_found_in_shared(composition), *issues_of_stages(tree)]
    recipe, wrong, in_parts = _validated(tree)
    if in_parts:
        found += wrong
    elif wrong and not issues and not found:  # stages that nothing harvests, once all else is right
        tree = without_stages(tree, idle_stages(tree) - _must_be_harvested(files, overrides))
        recipe, wrong, _ = _validated(tree)
        found += [*wrong, *unused_stages(tree)]
    # What could not be read was replaced: its value means nothing.
    issues += [issue for issue in found if issue.path not in reported]
    if issues or recipe is None:
        raise RecipeError(_once(issues))
    recipe._written = Written(tree, reading.sources)  # noqa: SLF001
    return recipe


def _validated(tree: Map) -> tuple[Recipe | None, list[Issue], bool]:
    """Return the recipe of a tree, or its mistakes and whether they lie in its parts, not in the whole."""
    try:
        return Recipe.model_validate(plain(tree)), [], False
    except ValidationError as error:
        in_parts = any(fault["loc"] for fault in error.errors())
        return None, issues_of(error, tree, RECIPE), in_parts


def _with_overrides(files: Sequence[Map], overrides: Sequence[str], issues: list[Issue]) -> list[Map]:
    layers = list(files)
    for number, text in enumerate(overrides, start=1):
        layer = layer_of(text, number, Composition(layers, []), issues)
        if layer is not None:
            layers.append(checked_layer(layer, issues))
    return layers


def _must_be_harvested(files: Sequence[Map], overrides: Sequence[str]) -> set[str]:
    """Return the stages that are a mistake where nothing harvests them.

    A stage of a file the recipe extends, or one that only an override made idle, is left out instead:
    who inherits it, or changes a value for one run, cannot remove it.
    """
    own = set(files[-1].get("stages", ()))
    return own & idle_stages(Composition(files, []).tree()) if overrides and own else own


def _as_name(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:80]
    return name if name else "recipe"


def _found_in_shared(composition: Composition) -> list[Issue]:
    """Return what is wrong in what all arms share, whether an arm uses it or not."""
    shared = composition.shared(ARMS)
    try:
        Arm.model_validate(plain(shared))
    except ValidationError as error:
        return issues_of(error, shared, ARMS.place, complete=False)
    return []


def _once(issues: Iterable[Issue]) -> list[Issue]:
    """Leave out what several arms inherit: the same mistake at the same place."""
    return list({(issue.message, issue.path, issue.mark): issue for issue in issues}.values())


@dataclass(slots=True)
class _Reading:
    """The files of one recipe, read depth first: a file's layer lies above those it extends."""

    issues: list[Issue] = field(default_factory=list)
    layers: list[Map] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    seen: set[Path] = field(default_factory=set)
    open: list[tuple[Path, str]] = field(default_factory=list)

    def add_mapping(self, source: Mapping[str, Any]) -> None:
        tree = named_entries(wrapped(source))
        if "recipe" in tree:
            check_version(tree, self.issues)
        self._add(tree, Path())

    def add_file(self, path: Path, *, name: str) -> None:
        self.add_text(yaml_source.read(path, name=name), path, name=name)

    def add_text(self, text: str, path: Path, *, name: str) -> None:
        self.sources[name] = text
        self.seen.add(path.resolve())
        tree = named_entries(yaml_source.parse(text, file=name, issues=self.issues))
        check_version(tree, self.issues)
        self.open.append((path.resolve(), name))
        self._add(tree, path.parent)
        self.open.pop()

    def _add(self, tree: Map, folder: Path) -> None:
        layer = checked_layer(tree, self.issues)
        for name, spot in layer["extends"].entries() if "extends" in layer else ():
            self._extend(name, spot, folder)
        self.layers.append(layer)

    def _extend(self, name: str, spot: NodePosition, folder: Path) -> None:
        if "\0" in name or name == "":
            self._note(f"{name!r} is not a path", spot, None)
            return
        path = Path(normpath(folder / name))
        where = path.resolve()
        if where in (above := [file for file, _ in self.open]):
            loop = [*(shown for _, shown in self.open[above.index(where) :]), str(path)]
            self._note(f"the file extends itself: {' → '.join(loop)}", spot, "remove one of these `extends`")
        elif len(self.seen) >= MAX_FILES:
            self._note(f"a recipe may extend {MAX_FILES - 1} files at most", spot, None)
        elif where not in self.seen:  # laid over again, a file would undo what lies between
            self._read_below(path, spot)

    def _read_below(self, path: Path, spot: NodePosition) -> None:
        """Read a file that is extended; that it cannot be read is a mistake of the one that extends it."""
        above = len(self.layers)
        try:
            self.add_file(path, name=str(path))
        except RecipeError as error:
            whole = [issue for issue in error.issues if issue.mark is not None and issue.mark.line == 0]
            if not whole:
                raise
            self._note(f"`{clipped(str(path))}`: {whole[0].message}", spot, whole[0].hint)
            return
        for index in range(above, len(self.layers)):
            # The name and description say what the other file shows, not this one.
            self.layers[index] = self.layers[index].without("name", "description")

    def _note(self, message: str, spot: NodePosition, hint: str | None) -> None:
        mark: FilePosition | None = spot.value
        self.issues.append(Issue(message, spot.path, mark, hint))
