"""Figures from the recorded history. Colours for colour-blind readers too (Okabe and Ito, 2008)."""

from __future__ import annotations

import textwrap
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cifar_fast.utils.files import atomic_write
from cifar_fast.utils.fonts import figure_names, plain_text

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
NUMBERED = 20  # classes of a confusion matrix: its cells hold their numbers up to so many
LARGEST = 9.5  # inches, of one with more classes: a page shows it at about its own size
MOST_TURNS, TURNS_DRAWN = 60, 16  # of a learning rate that rises and falls: more than so many are a solid block
MOST_TICKS = 50  # names that fit legibly on an axis of the largest confusion matrix


def figure(columns: int = 1, width: float = 5.2, height: float = 3.6, rows: int = 1):
    "(figure, axes) of panels of this size in inches, without pyplot, whose global state stays as it is."
    fig = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return fig, fig.subplots(rows, columns)


def save(fig: Figure, path: str | Path) -> None:
    "Write a PNG; equal figures give equal bytes."
    plain_text(fig)
    with atomic_write(path) as tmp:
        fig.savefig(tmp, dpi=120, format="png", metadata={"Software": f"matplotlib {matplotlib.__version__}"})


def history(frame: pd.DataFrame, title: str = "", target: float | None = None, valid_name: str = "held-out") -> Figure:
    "Loss and accuracy by epoch, with the target accuracy (a fraction) as a red dashed line where there is one."
    fig, (left, right) = figure(2, width=4.8)
    for ax, metric in ((left, "loss"), (right, "accuracy")):
        scale = 100 if metric == "accuracy" else 1
        for column, label, colour in ((f"train_{metric}", "train", BLUE), (f"valid_{metric}", valid_name, ORANGE),
                                      (f"valid_ema_{metric}", f"{valid_name}, EMA", GREEN),
                                      (f"valid_balanced_{metric}", f"{valid_name}, balanced", VERMILION),
                                      (f"valid_ema_balanced_{metric}", f"{valid_name}, EMA, balanced", VERMILION)):
            if column in frame:
                ax.plot(frame["epoch"], frame[column] * scale, label=label, color=colour,
                        marker="o" if len(frame) < 3 else None)
        ax.set_ylabel("accuracy (%)" if scale == 100 else "loss (cross-entropy)")
        epoch_axis(ax)
        ax.grid(alpha=0.3)
    target_line(right, target)
    left.legend()
    right.legend()
    set_title(fig, title)
    return fig


def set_title(fig: Figure, title: str, fontsize: float = 12) -> None:
    "A title over the whole figure, each of its lines in as many as the figure's width needs."
    width = int(fig.get_figwidth() * 72 / (0.62 * fontsize))
    fig.suptitle("\n".join(textwrap.fill(line, width) for line in title.split("\n")), fontsize=fontsize)


def epoch_axis(ax: Axes) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # whole epochs, though there be one


def target_line(ax: Axes, target: float | None) -> None:
    "A red dashed line at the target accuracy, a fraction; none without one."
    if target:
        ax.axhline(target * 100, color="red", ls="--", lw=1, label=f"target {target * 100:g} %")


def published(measured: pd.DataFrame | dict[str, pd.DataFrame], record: pd.DataFrame, title: str = "",
              target: float | None = None) -> Figure:
    """Accuracy by epoch on training and on validation images: measured solid, the published record dashed.

    `measured` is a history, or several as label → history.
    """
    if isinstance(measured, pd.DataFrame):
        measured = {"measured (selected on test)": measured}
    fig, axes = figure(2, width=4.8)
    lines = [("published", record, "black", "--"),
             *((label, frame, colour, "-") for (label, frame), colour in
               zip(measured.items(), (BLUE, ORANGE, GREEN, VERMILION)[:len(measured)], strict=True))]
    for ax, split in zip(axes, ("training", "validation"), strict=True):
        column = f"{split[:5]}_accuracy"
        for label, frame, colour, style in lines:
            if column in frame:  # a run that trains on everything has no validation
                ax.plot(frame["epoch"], frame[column] * 100, style, label=label, color=colour,
                        marker="o" if len(frame) < 12 else None, ms=4)
        ax.set_ylabel(f"{split} accuracy (%)")
        epoch_axis(ax)
        ax.grid(alpha=0.3)
    target_line(axes[1], target)
    for ax in axes:
        ax.legend()
    set_title(fig, title)
    return fig


def learning_rate(steps: list[tuple[float, float | None]], title: str = "") -> Figure:
    """Learning rate over steps, and momentum if it changes.

    A cyclic schedule may turn thousands of times, and its line would be a solid block: then the first cycles are
    drawn, and beside them the range of the values over the whole run.
    """
    lr, mom = zip(*steps, strict=True)
    shown = [("learning rate", np.array(lr))]
    if mom[0] is not None and len(set(mom)) > 1:
        shown.append(("momentum (of Adam: beta1)", np.array(mom)))
    turns = turning_points(shown[0][1])
    dense = len(turns) > MOST_TURNS
    rows, columns = (len(shown), 2) if dense else (1, len(shown))
    fig = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False)
    first = turns[TURNS_DRAWN] if dense else len(lr)
    for ax, (label, values) in zip(axes[:, 0] if dense else axes[0], shown, strict=True):
        ax.plot(values[:first], color=VERMILION, lw=1)
        ax.set(xlabel=f"step (batch), the first {first:,} of {len(lr):,}" if dense else "step (batch)", ylabel=label)
    for ax, (label, values) in zip(axes[:, 1], shown, strict=True) if dense else ():
        parts = np.array_split(np.arange(len(values)), min(200, len(turns) // 4))
        ax.fill_between([p.mean() for p in parts], [values[p].min() for p in parts],
                        [values[p].max() for p in parts], color=VERMILION, alpha=0.4, lw=0)
        ax.set(xlabel="step (batch)", ylabel=f"{label}: range")
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    set_title(fig, title)
    return fig


def turning_points(values: np.ndarray) -> np.ndarray:
    "Indices at which a rising sequence begins to fall, or a falling one to rise; level stretches do not count."
    change = np.diff(values)
    moves = np.flatnonzero(change)
    turns = np.flatnonzero(np.diff(np.sign(change[moves])))
    return moves[turns + 1]


def lr_find(search: dict, title: str = "") -> Figure:
    "Loss over learning rate, with the suggestions and the recipe's own rate marked."
    fig, ax = figure(width=7)
    ax.plot(search["lr"], search["loss"], color=BLUE, lw=1.5)
    for (name, point), colour, marker in zip(search["suggestions"].items(), (VERMILION, GREEN, ORANGE, "black"),
                                             "osD^", strict=False):
        name = "a tenth of the minimum's rate" if name == "minimum" else name  # as fastai suggests
        ax.plot(point["lr"], point["loss"], marker, color=colour, ms=8, label=f"{name} {point['lr']:.2g}")
    own = search["recipe"]["lr"]
    ax.axvline(own, color="black", ls="--", lw=1, label=f"recipe {own:.2g}")
    start, low = search["loss"][0], min(search["loss"])
    ax.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (smoothed)",
           ylim=(low - 0.1 * abs(start), start + 0.7 * (start - low) + 0.1))
    plain_log_ticks(ax, subs=(1,))
    ax.legend(loc="lower left")
    ax.grid(alpha=0.3)
    set_title(fig, title)
    return fig


def plain_log_ticks(ax: Axes, subs: tuple[int, ...] = (1, 2, 5)) -> None:
    "A logarithmic x axis with its numbers written out: matplotlib's own powers are mathematics."
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.12f}".rstrip("0").rstrip("."))
    ax.xaxis.set_minor_formatter(NullFormatter())


def confusion(matrix: list[list[int]], vocab, title: str) -> Figure:
    "Confusion matrix in percent of each true class; of many classes every second, third … is named."
    counts = np.array(matrix)
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 3 + 0.45 * len(vocab) if len(vocab) <= NUMBERED else LARGEST
    fig, ax = figure(width=side + 1, height=side)
    ax.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    names = figure_names(vocab, 24)
    step = ceil(len(names) / MOST_TICKS)
    few = len(names) <= NUMBERED
    size = 10 if few else 7
    ax.set_xticks(range(0, len(names), step), names[::step], fontsize=size, rotation=45 if few else 90,
                  ha="right" if few else "center")
    ax.set_yticks(range(0, len(names), step), names[::step], fontsize=size)
    ax.set(xlabel="predicted", ylabel="true")
    set_title(fig, f"{title}: % of each true class" + (f" (1 in {step} classes is labelled)" if step > 1 else ""))
    if few:
        for (i, j), f in np.ndenumerate(fraction):
            if counts[i, j]:
                ax.text(j, i, f"{f * 100:.0f}" if round(f * 100) else "<1", ha="center", va="center", fontsize=8,
                        color="white" if f > 0.5 else "black")
    return fig


def image_grid(sections: list[tuple[str, list[np.ndarray], list[str]]], columns: int = 8, side: float = 1.0,
               tall: float = 1.0) -> Figure:
    "Images (H, W, 3) under headings, `columns` in a row, each `side` inches wide, `tall` times as high, and captioned."
    rows = [(heading if i == 0 else "", images[i:i + columns], captions[i:i + columns])
            for heading, images, captions in sections for i in range(0, len(images), columns)]
    heights = [side * (tall + (0.6 if heading else 0.35)) for heading, *_ in rows]
    fig = Figure(figsize=(columns * side, sum(heights) + 0.1), layout="constrained")
    bands = fig.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for band, (heading, images, captions) in zip(bands, rows, strict=True):
        if heading:
            band.suptitle(heading, fontsize=9, x=0.01, ha="left")
        axes = np.atleast_1d(band.subplots(1, columns))
        for ax in axes:
            ax.axis("off")
        for ax, image, caption in zip(axes, images, captions, strict=False):
            ax.imshow(image, interpolation="nearest")
            ax.set_title(caption, fontsize=6.5, pad=2)
    return fig
