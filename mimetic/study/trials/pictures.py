"""Pictures of a trial: filters and their covariance at the start and at the end, and what was measured."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from mimetic.analysis.ansatz import training_figure
from mimetic.analysis.covariance_map import covariance_figure
from mimetic.analysis.filters import filters_figure
from mimetic.graph.names import walk
from mimetic.graph.targets import targets
from mimetic.plans.entry import Entry
from mimetic.plans.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pictures = Mapping[str, "Callable[[], Figure]"]
"""Name of the file → the function that draws it."""

LAYERS = 3
"""How many layers are drawn: the first, the middle and the last that have spatial filters."""

_SPATIAL = ("depthwise_conv", "conv")


def filter_pictures(plan: Plan, model: nn.Module, moment: str) -> Pictures:
    """Return pictures of the filters of a few spatial layers and of the covariance over their pixels.

    `moment`, `start` or `end`, is part of the file names. There are none where the network has no spatial
    filters.
    """
    chosen = _chosen(plan)
    if not chosen:
        return {}
    known = targets(walk(model))
    weights = {entry.layer: known[entry.parameter].current().float() for entry in chosen}
    return {
        f"filters-{moment}.png": partial(filters_figure, weights, title=f"Filters at the {moment}"),
        f"covariance-{moment}.png": partial(
            covariance_figure, weights, title=f"Covariance over pixels at the {moment}"
        ),
    }


def ansatz_pictures(curves: Mapping[str, Mapping[int, float]]) -> Pictures:
    """Return a picture of the correlations of NFM and AGOP over training; none if they were not measured."""
    found = {measure: _of_layers(curves, measure) for measure in ("rho", "rho_change", "rho_init")}
    return {"ansatz-end.png": partial(training_figure, **found)} if found["rho"] else {}


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
