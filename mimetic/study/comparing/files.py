"""The files of a study's comparison: Markdown, figures, the page, and the numbers as JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from mimetic.analysis.style import save_figure
from mimetic.errors import UserError
from mimetic.files import write_text
from mimetic.study.comparing.formats import markdown
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.rendering import figures
from mimetic.study.comparing.report import REPORT, report
from mimetic.study.comparing.results import TrialResult


def write_results(
    comparison: Comparison, results: Sequence[TrialResult], folder: Path, show: Callable[[str], None]
) -> list[Path]:
    """Write the files of a comparison unless they are there, and return them.

    `comparison.json` is written last: if it is equal, so are the others. A study whose recipe or versions
    change has none of them at first. `show` displays why a figure could not be drawn.

    Raises:
        OSError: If a file cannot be written; it names the file.
    """
    last, text = folder / "comparison.json", json.dumps(comparison.to_dict(), indent=1) + "\n"
    files = [file for name in ("comparison.*", "curves.png", REPORT) for file in sorted(folder.glob(name))]
    is_drawn = any(file.suffix == ".png" for file in files)
    if is_drawn and {last, folder / REPORT} <= set(files) and last.read_bytes() == text.encode():
        return files
    files = _write_comparison(comparison, results, folder, show)
    drawn = {file.stem: file.read_bytes() for file in files if file.suffix == ".png"}
    files.append(folder / REPORT)
    write_text(files[-1], report([comparison], {folder: results}, drawn=drawn))
    write_text(last, text)
    return [last, *files]


def _write_comparison(
    comparison: Comparison, results: Sequence[TrialResult], folder: Path, show: Callable[[str], None]
) -> list[Path]:
    """Write `comparison.md` and two figures, and return the files."""
    files = [folder / "comparison.md"]
    write_text(files[0], markdown([comparison]))
    for name, draw in figures(comparison, results).items():
        path = folder / f"{name}.png"
        try:
            if save_figure(path, draw, dpi=120):
                files.append(path)
        except UserError as error:
            show(str(error))
    return files
