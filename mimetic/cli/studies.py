"""How verbs name a study: by its folder, by a recipe, or by the recipe's name."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from mimetic.errors import UserError
from mimetic.recipe.load import load

StudyName = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help="Folder of a study, or a recipe or its name: its latest study.",
        show_default=False,
    ),
]


def find_study(study: str | None, root: Path) -> Path:
    """Return the folder of a study; the latest of all unless named.

    Raises:
        UserError: If there is none.
    """
    from mimetic.study.layout import studies

    if study is not None and Path(study).is_dir():
        return Path(study)
    name = load(study).name if study is not None and Path(study).is_file() else study
    found = list(studies(root, name))
    if not found:
        raise UserError(_nothing(name, root, sorted({folder.parent.name for folder in studies(root)})))
    return found[-1]


def _nothing(name: str | None, root: Path, names: list[str]) -> str:
    if not names:
        return f"there is no study below {root} yet; run one with `mimetic run RECIPE`"
    close = get_close_matches("" if name is None else name, names, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(names)}"
    return f"there is no study of `{name}` below {root}; {hint}"
