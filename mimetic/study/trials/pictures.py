"""Pictures of a trial: filters and their covariance at the start and at the end, and what was measured."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from mimetic.files import write_atomically
from mimetic.plans.entry import Entry
from mimetic.plans.plan import Plan

LAYERS = 3
"""How many layers are drawn: the first, the middle and the last that have spatial filters."""

_SPATIAL = ("depthwise_conv", "conv")


def draw_pictures(plan: Plan, parameters: Mapping[str, Tensor], folder: Path, moment: str) -> list[Path]:
    """Draw the filters of a few spatial layers and the covariance over their pixels.

    `moment`, `start` or `end`, is part of the file names.

    Returns:
        The files written; none where the network has no spatial filters.
    """
    chosen = _chosen(plan)
    if not chosen:
        return []
    from mimetic.analysis.covariance_map import covariance_figure
    from mimetic.analysis.filters import filters_figure

    weights = {entry.layer: parameters[entry.parameter].detach().float().cpu() for entry in chosen}
    files = []
    for name, figure in (
        ("filters", filters_figure(weights, title=f"Filters at the {moment}")),
        (
            "covariance",
            covariance_figure(weights, title=f"Covariance over the filters' pixels at the {moment}"),
        ),
    ):
        path = folder / f"{name}-{moment}.png"
        write_atomically(path, partial(figure.savefig, format="png", dpi=100))
        files.append(path)
    return files


def draw_ansatz(curves: Mapping[str, Mapping[int, float]], folder: Path) -> list[Path]:
    """Draw the correlations of NFM and AGOP over training, where they were measured.

    Returns:
        The file written; none where nothing was measured.
    """
    found = {measure: _of_layers(curves, measure) for measure in ("rho", "rho_change", "rho_init")}
    if not found["rho"]:
        return []
    from mimetic.analysis.ansatz import training_figure

    figure = training_figure(found["rho"], rho_change=found["rho_change"], rho_init=found["rho_init"])
    path = folder / "ansatz-end.png"
    write_atomically(path, partial(figure.savefig, format="png", dpi=100))
    return [path]


def _of_layers(curves: Mapping[str, Mapping[int, float]], measure: str) -> dict[str, Mapping[int, float]]:
    """Return layer → curve of one measure, in the order it was measured in."""
    named = ((re.fullmatch(f"ansatz/(.+)/{measure}", name), curve) for name, curve in curves.items())
    return {found[1]: curve for found, curve in named if found is not None}


def _chosen(plan: Plan) -> list[Entry]:
    spatial = [
        entry
        for entry in plan.entries
        if entry.kind in _SPATIAL
        and entry.parameter.endswith("weight")
        and len(entry.shape) == 4  # noqa: PLR2004
        and min(entry.shape[2:]) > 1
    ]
    depthwise = [entry for entry in spatial if entry.kind == "depthwise_conv"]
    rows = depthwise if depthwise else spatial
    places = sorted({0, len(rows) // 2, len(rows) - 1}) if rows else []
    return [rows[place] for place in places][:LAYERS]
