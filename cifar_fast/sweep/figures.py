"""Draws the figures of a sweep, see `table.FIGURES`. Trials that were stopped early are marked in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_fast.reporting.plots import BLUE, ORANGE, VERMILION, epoch_axis, figure, save, set_title
from cifar_fast.sweep.snapshot import Snapshot, Trial
from cifar_fast.utils.fonts import figure_names

COLOURS = colormaps["viridis"]
GREY = "#9a9a9a"


def draw(snapshot: Snapshot, folder: Path) -> list[str]:
    "Draw those that there is something to show in; returns their names."
    drawn = []
    for name, make in (("history.png", history), ("curves.png", curves), ("parallel.png", parallel),
                       ("importance.png", importance)):
        if (fig := make(snapshot)) is None:
            (folder / name).unlink(missing_ok=True)
        else:
            save(fig, folder / name)
            drawn.append(name)
    return drawn


def history(snapshot: Snapshot) -> Figure | None:
    complete = [t for t in snapshot.trials if t.accuracy is not None]
    early = [t for t in snapshot.trials if t.early and t.best is not None]
    if not complete and not early:
        return None
    fig, ax = figure(width=7)
    if complete:
        ax.plot([t.number for t in complete], [t.accuracy * 100 for t in complete], "o", color=BLUE, label="complete")
        best = np.maximum.accumulate([t.accuracy * 100 for t in complete])
        ax.step([t.number for t in complete], best, where="post", color=ORANGE, label="best so far")
    if early:
        ax.plot([t.number for t in early], [t.best * 100 for t in early], "x", color=VERMILION,
                label="pruned or diverged (best epoch)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="trial", ylabel="held-out accuracy (%)")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    set_title(fig, snapshot.name)
    return fig


def curves(snapshot: Snapshot) -> Figure | None:
    shown = [t for t in snapshot.trials if t.curve]
    if not shown:
        return None
    fig, ax = figure(width=7)
    for trial in shown:
        epochs, values = [int(e) for e in trial.curve], [v * 100 for v in trial.curve.values()]
        best = snapshot.best is not None and trial.number == snapshot.best.number
        ax.plot(epochs, values, color=ORANGE if best else GREY if trial.early else BLUE, lw=2 if best else 0.9,
                alpha=1 if best else 0.7, zorder=3 if best else 2,
                label=f"trial {trial.number}, the best" if best else None)
        if trial.early:
            ax.plot(epochs[-1], values[-1], "x", color=VERMILION, ms=6, zorder=4)
        elif len(epochs) == 1:
            ax.plot(epochs, values, ".", color=BLUE)
    epoch_axis(ax)
    ax.set_ylabel("held-out accuracy (%)")
    ax.grid(alpha=0.3)
    if snapshot.best:
        ax.legend(fontsize=8)
    set_title(fig, snapshot.name)
    return fig


def parallel(snapshot: Snapshot) -> Figure | None:
    "One axis a setting, and accuracy as the last."
    shown = [t for t in snapshot.trials if (t.early or t.state == "complete") and t.best is not None
             and len(t.params) == len(snapshot.space)]
    if len(shown) < 2:
        return None
    keys = list(snapshot.space)
    axes = [places([t.params[k] for t in shown], ":log" in snapshot.space[k]) for k in keys]
    axes.append(places([t.best * 100 for t in shown], False))
    accuracy = np.array([t.best for t in shown])
    span = float(np.ptp(accuracy)) or 1.0
    fig = Figure(figsize=(max(6.4, 1.6 * len(axes) + 1.5), 4.2), layout="constrained")
    ax = fig.subplots()
    for i in np.argsort(accuracy):  # the best on top
        line_of(ax, shown[i], [at[i] for at, _ in axes], (accuracy[i] - accuracy.min()) / span)
    for x, (_, ticks) in enumerate(axes):
        ax.axvline(x, color="black", lw=0.8)
        for y, text in ticks:
            ax.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center",
                        bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0})
    ax.set_xticks(range(len(axes)), [*figure_names(keys, 18), "accuracy (%)"])
    ax.set_yticks([])
    ax.set(xlim=(-0.2, len(axes) - 1 + 0.45), ylim=(-0.06, 1.06))
    for side in ("top", "left", "right", "bottom"):
        ax.spines[side].set_visible(False)
    set_title(fig, snapshot.name)
    return fig


def line_of(ax, trial: Trial, ys: list[float], shade: float) -> None:
    ax.plot(range(len(ys)), ys, color=COLOURS(0.92 * shade), lw=1.2, ls="--" if trial.early else "-",
            alpha=0.45 if trial.early else 0.9)


def places(values: list, log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    "Where each value is on an axis from 0 to 1, and its ticks as (place, text)."
    if any(isinstance(v, str) for v in values):
        names = sorted(dict.fromkeys(map(str, values)), key=numbers_first)
        at = {n: (i + 0.5) / len(names) for i, n in enumerate(names)}
        return [at[str(v)] for v in values], list(zip(at.values(), figure_names(names, 14), strict=True))
    numbers = np.array(values, float)
    scale = np.log(numbers) if log else numbers
    low, high = float(scale.min()), float(scale.max())
    width = (high - low) or 1.0
    marks = np.linspace(low, high, 5) if high > low else [low]
    if not log and all(isinstance(v, int) for v in values):
        marks = sorted({round(m) for m in marks})
    ticks = [((m - low) / width, f"{np.exp(m) if log else m:.3g}") for m in marks]
    return [float((s - low) / width) for s in scale], ticks


def numbers_first(name: str) -> tuple[bool, float]:
    "Numbers by their value, other words as they come."
    try:
        return False, float(name)
    except ValueError:
        return True, 0.0


def importance(snapshot: Snapshot) -> Figure | None:
    if not snapshot.importance:
        return None
    shown = sorted(snapshot.importance.items(), key=lambda item: item[1])
    fig, ax = figure(width=6.4, height=1.1 + 0.35 * len(shown))
    ax.barh(range(len(shown)), [v for _, v in shown], color=BLUE)
    ax.set_yticks(range(len(shown)), figure_names([k for k, _ in shown], 24))
    for row, (_, value) in enumerate(shown):
        ax.text(value + 0.01, row, f"{value:.2f}", va="center", fontsize=8)
    ax.set(xlim=(0, 1.12), xlabel="fraction of the variance of accuracy")
    set_title(fig, snapshot.name)
    return fig
