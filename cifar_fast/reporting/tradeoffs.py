"""Accuracy against what it costs: parameters, multiply-adds, seconds, and flash where runs of ours know it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_fast.reporting.labels import place_names
from cifar_fast.reporting.plots import BLUE, GREEN, VERMILION, figure, plain_log_ticks, set_title, target_line
from cifar_fast.utils.fonts import plain_text

KINDS = {  # of points: legend, colour, marker, filled
    "ours": ("ours", BLUE, "o", True),
    "published": ("reproduced systems, stated by their authors, selected on test", VERMILION, "s", False),
    "public": ("public models, stated by others", GREEN, "^", False),
}
COSTS = (  # column, unit, label of the axis
    ("parameters", 1e3, "parameters (thousands, log scale)"),
    ("multiply_adds", 1e6, "multiply-adds per image (millions, log scale)"),
    ("flash", 1024, "flash of a microcontroller, in int8 (KB, log scale)"),
    ("seconds", 1, "training, on the hardware of each (seconds, log scale)"),
)


def tradeoffs(
    points: pd.DataFrame,  # label, kind (of KINDS), accuracy and std in percent, and the columns of COSTS
    title: str = "",
    target: float | None = None,  # accuracy, a fraction
    joined: bool = False,  # our points by a line, where they are one thing at several sizes
) -> Figure:
    "A panel for each cost. What was run here is filled, what others state is hollow."
    ours = points[points["kind"] == "ours"]
    costs = [cost for cost in COSTS if cost[0] in ("parameters", "multiply_adds") or ours[cost[0]].notna().any()]
    columns = 2 if len(costs) == 4 else len(costs)  # four beside each other would be too small to read on a page
    fig, axes = figure(columns, width=5, height=5.4, rows=len(costs) // columns)
    axes = list(axes.flat)
    for ax, (cost, unit, label) in zip(axes, costs, strict=True):
        for kind in KINDS:
            draw_kind(ax, points[points["kind"] == kind], cost, unit, kind, joined and kind == "ours")
        target_line(ax, target)
        ax.set(xscale="log", xlabel=label)
        ax.margins(x=0.15, y=0.1)
        low, high = ax.get_xlim()
        plain_log_ticks(ax, (1, 2, 5) if high < 200 * low else (1, 3))  # more numbers would overlap
        ax.grid(alpha=0.3)
        if ax is not axes[0]:
            ax.sharey(axes[0])
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("accuracy (%)")
    set_title(fig, title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    plain_text(fig)
    fig.draw_without_rendering()  # from here on nothing moves, so names can be placed
    fig.set_layout_engine("none")
    for ax, (cost, unit, *_) in zip(axes, costs, strict=True):
        known = points[points[cost].notna()]
        place_names(ax, [(p[cost] / unit, p["accuracy"], p["std"] if p["std"] > 0 else 0, p["label"],
                          KINDS[p["kind"]][1]) for _, p in known.iterrows()])
    return fig


def draw_kind(ax: Axes, points: pd.DataFrame, cost: str, unit: float, kind: str, joined: bool = False) -> None:
    "The points of one kind with their error bars; in the legend although none has this cost."
    if points.empty:
        return
    legend, colour, marker, filled = KINDS[kind]
    if (points["std"] > 0).any():
        legend += " (mean ± standard deviation over seeds)"
    known = points[points[cost].notna()].sort_values(cost)
    if joined:
        ax.plot(known[cost] / unit, known["accuracy"], "-", color=colour, lw=1)
    ax.plot(known[cost] / unit, known["accuracy"], marker, color=colour, ms=7, label=legend, zorder=3,
            mfc=colour if filled else "white")
    ax.errorbar(known[cost] / unit, known["accuracy"], known["std"], fmt="none", color=colour, capsize=3, lw=1)
