"""Answer `--resume` of a study that is complete from its files, without planning it again. No torch.

When a study that depends on nothing but its recipe, installed packages and named data files is complete,
`complete.json` gets a digest of all of these. As long as it is the same, planning would find the same plans
and data, and there is nothing to train. The journals are read as ever: one that is missing or of another
content leaves the study to `mimetic.study.study`.
"""

import json
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import mimetic
from mimetic.config.registry import Component
from mimetic.covariance.config import CovarianceFile
from mimetic.data.config import DataSection
from mimetic.data.files import data_files
from mimetic.files import check_contained, file_digest, parse_json, read_regular, write_text
from mimetic.models.config import PythonModel
from mimetic.recipe.dump import values_of
from mimetic.recipe.recipe import Recipe
from mimetic.recipe.stages import origins, values_in
from mimetic.study.comparing.results import read_result
from mimetic.study.conclusion import StudyResult, conclude
from mimetic.study.display import Display
from mimetic.study.layout import studies, study_id, trials_of
from mimetic.study.locks import locked_study
from mimetic.study.record import RECORD
from mimetic.study.tracker import StudyTrials
from mimetic.tracking.mirror import is_mirrored
from mimetic.tracking.store import redacted, tracking_uri

_FILE = "complete.json"


def record_complete(recipe: Recipe, result: StudyResult, root: Path, notes: Sequence[str]) -> None:
    """Write what a study that is complete was planned from, and the notes of its plans.

    Nothing is written for a study that depends on more than `complete_result` looks at.
    """
    path = result.folder / _FILE
    if result.complete and _is_closed(recipe):
        entry = {
            "key": _key(recipe, result.folder),
            "notes": list(notes),
            "link": result.link,
            "store": None if result.link is None else redacted(tracking_uri(root)),
        }
        write_text(path, json.dumps(entry, indent=1) + "\n")
    else:
        path.unlink(missing_ok=True)


def complete_result(recipe: Recipe, root: Path, *, offline: bool, display: Display) -> StudyResult | None:
    """Return the result of the latest study of a recipe if nothing is left to do; else None.

    Nothing is left if planning would find what it found before, every trial has finished, and, unless
    offline, the store has all runs. Comparison files that are missing or differ are written.

    Raises:
        UserError: If the folder has a link that leads elsewhere, or another process runs the study.
    """
    folder = next(reversed(list(studies(root, recipe.name))), None)
    if folder is None or not _is_closed(recipe):
        return None
    folder = folder.resolve()
    try:
        entry = parse_json(read_regular(folder / _FILE))
        key, notes, link, store = (entry[name] for name in ("key", "notes", "link", "store"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if key != _key(recipe, folder):
        return None
    study = StudyTrials(recipe, folder, trials_of(folder))
    check_contained(folder)
    with locked_study(folder):
        results = [read_result(trial) for trial in study.trials]
        if any(result.status != "FINISHED" for result in results):
            return None
        if not offline and (
            store != tracking_uri(root) or not is_mirrored(store, study_id(folder), len(results))
        ):
            return None
        display.start(folder, [])
        for note in notes:
            display.message(note)
        found = conclude(study, None, display, interrupted=False, results=results)
    return found if offline else replace(found, link=link)


def _is_closed(recipe: Recipe) -> bool:
    """Return whether a recipe depends on nothing but itself, installed packages and the files of its data."""
    parts = [part for _, part in values_in(recipe, Component)]
    others = any(isinstance(part, PythonModel | CovarianceFile) for part in parts) or any(origins(recipe))
    decides = recipe.study.select is not None or recipe.study.halving is not None
    return not others and not decides and all(map(_is_known, parts))


def _is_known(part: Component) -> bool:
    """Return whether a component is our own, and the files that it reads are known."""
    names = (type(part).__module__, *part.functions.values())
    is_own = all(name.startswith("mimetic.") for name in names)
    return is_own and not (isinstance(part, DataSection) and part.files is None)


def _key(recipe: Recipe, folder: Path) -> str:
    """Return a digest of everything that the plans and the data of a closed recipe depend on."""
    return blake2b("\n".join(_parts(recipe, folder)).encode(), digest_size=16).hexdigest()


def _parts(recipe: Recipe, folder: Path) -> Iterator[str]:
    yield json.dumps(values_of(recipe))
    yield file_digest(folder / RECORD)
    # Our own files may change without their version, as in a checkout; those of packages have theirs.
    own = Path(mimetic.__file__).parent
    for file in sorted(own.rglob("*")):
        if "__pycache__" not in file.parts and file.is_file():
            yield f"{file.relative_to(own)} {file_digest(file)}"
    yield sys.version
    yield from sorted({file.name for place in _places() for file in place.glob("*.dist-info")})
    for data in dict.fromkeys(data for _, data in values_in(recipe.arms, DataSection)):
        for file in data_files(data):
            yield f"{file} {file_digest(file)}"


def _places() -> Iterator[Path]:
    """Yield the folders that packages are installed in, whatever has been imported.

    Importing a package may add a folder to the path: Ray adds that of its vendored packages.
    """
    installed = Path(sysconfig.get_path("purelib"))
    for place in map(Path, sys.path):
        if installed not in place.parents:
            yield place
