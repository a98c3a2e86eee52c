"""The arms of a study at a glance: every seed's final value, and the paired differences with intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mimetic.analysis.style import FAINT, INK, LABEL, TICK, color, new_figure, quiet_axes
from mimetic.files import JsonObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def comparison_figure(comparison: JsonObject, *, title: str | None = None) -> "Figure":
    """Return a figure with two panels: values of all seeds by arm, and paired differences to the baseline.

    `comparison` is the content of `comparison.json`.
    """
    rows = comparison["arms"]
    values = {row["arm"]: list(row["values"].values()) for row in rows}
    if not any(values.values()):
        raise ValueError("no value to draw")
    found = {row["arm"]: row["difference"] for row in rows if row["difference"] is not None}
    differences = {arm: own for arm, own in found.items() if own["mean"] is not None}
    unit = comparison["unit"]
    label = f"{comparison['metric']} [{unit}]" if unit else str(comparison["metric"])
    arms = list(values)
    height = 1.35 + 0.42 * len(arms)
    names = min(3.2, 0.3 + 0.085 * max(len(arm) for arm in arms))
    width = names + 7.0
    figure = new_figure(width, height, title)
    bottom, tall = 0.62 / height, (height - 1.15) / height
    left = figure.add_axes((names / width, bottom, 3.3 / width, tall))
    right = figure.add_axes(((names + 3.55) / width, bottom, 3.2 / width, tall))
    _values_panel(left, arms, values, label)
    _differences_panel(right, arms, differences, comparison)
    return figure


def _values_panel(axes: "Axes", arms: list[str], values: Mapping[str, Sequence[float]], label: str) -> None:
    for place, arm in enumerate(arms):
        seeds = list(values[arm])
        if not seeds:
            axes.text(
                0.02,
                place,
                "no trial finished",
                transform=axes.get_yaxis_transform(),
                fontsize=TICK,
                va="center",
            )
            continue
        axes.plot(
            seeds, [place] * len(seeds), "o", color=color(place), alpha=0.45, markersize=6, markeredgewidth=0
        )
        axes.plot(sum(seeds) / len(seeds), place, "|", color=color(place), markersize=18, markeredgewidth=2.5)
    quiet_axes(axes, x=label, title="each seed, and the mean")
    _arm_rows(axes, arms)
    axes.set_yticklabels(arms, fontsize=LABEL, color=INK)


def _differences_panel(
    axes: "Axes", arms: list[str], differences: Mapping[str, JsonObject], comparison: JsonObject
) -> None:
    baseline = comparison["baseline"]
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for place, arm in enumerate(arms):
        if arm not in differences:
            continue
        mean, low, high = (differences[arm][name] for name in ("mean", "low", "high"))
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=color(place), linewidth=2.5, solid_capstyle="butt")
        axes.plot(mean, place, "D", color=color(place), markersize=7)
    if baseline in arms:
        axes.text(
            0.0, arms.index(baseline), " baseline", fontsize=TICK, color=INK, va="center", ha="left",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    unit = "percent points" if comparison["unit"] == "%" else comparison["metric"]
    quiet_axes(axes, x=f"difference [{unit}]", title=_heading(comparison))
    _arm_rows(axes, arms)
    axes.set_yticklabels([])
    axes.margins(x=0.12)


def _arm_rows(axes: "Axes", arms: list[str]) -> None:
    axes.set_yticks(range(len(arms)))
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _heading(comparison: JsonObject) -> str:
    corrected = ", Holm-corrected" if comparison["comparisons"] > 1 else ""
    return f"paired by seed, {comparison['level']:.0%} interval{corrected}"
