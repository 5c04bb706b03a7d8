"""Figures from the recorded history. Colours are told apart by colour-blind readers too (Okabe and Ito, 2008)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cifar_fast.reporting.labels import place
from cifar_fast.utils.files import atomic_write

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def figure(columns: int = 1, width: float = 5.2, height: float = 3.6):
    "A figure of its own and its axes; pyplot's global state is left alone."
    fig = Figure(figsize=(width * columns, height), layout="constrained")
    return fig, fig.subplots(1, columns)


def save(fig: Figure, path: str | Path) -> None:
    with atomic_write(path) as tmp:
        fig.savefig(tmp, dpi=120, format="png", metadata={"Software": f"matplotlib {matplotlib.__version__}"})


def history(frame: pd.DataFrame, title: str = "", target: float | None = 0.85, valid_name: str = "held-out") -> Figure:
    "Loss and accuracy (with the target as a red dashed line) by epoch."
    fig, (left, right) = figure(2, width=4.8)
    for ax, what in ((left, "loss"), (right, "accuracy")):
        scale = 100 if what == "accuracy" else 1
        for column, label, colour in ((f"train_{what}", "train", BLUE), (f"valid_{what}", valid_name, ORANGE),
                                      (f"valid_ema_{what}", f"{valid_name}, EMA", GREEN)):
            if column in frame:
                ax.plot(frame["epoch"], frame[column] * scale, label=label, color=colour,
                        marker="o" if len(frame) < 3 else None)
        ax.set(xlabel="epoch", ylabel="accuracy (%)" if scale == 100 else "loss (cross-entropy)")
        ax.grid(alpha=0.3)
    if target:
        right.axhline(target * 100, color="red", ls="--", lw=1, label=f"{target:.0%}")
    left.legend()
    right.legend()
    fig.suptitle(title)
    return fig


def published(measured: pd.DataFrame | dict[str, pd.DataFrame], record: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy by epoch on training and on validation images: measured solid, the published record dashed.

    Several measured readings are given as label → frame.
    """
    if isinstance(measured, pd.DataFrame):
        measured = {"measured (selected on test)": measured}
    fig, axes = figure(2, width=4.8)
    lines = [("published", record, "black", "--"),
             *((label, frame, colour, "-") for (label, frame), colour in
               zip(measured.items(), (BLUE, ORANGE, GREEN, VERMILION)[:len(measured)], strict=True))]
    for ax, column, what in zip(axes, ("train_accuracy", "valid_accuracy"), ("training", "validation"), strict=True):
        for label, frame, colour, style in lines:
            if column in frame:  # a run that trains on everything has no validation
                ax.plot(frame["epoch"], frame[column] * 100, style, label=label, color=colour,
                        marker="o" if len(frame) < 12 else None, ms=4)
        ax.set(xlabel="epoch", ylabel=f"{what} accuracy (%)")
        ax.grid(alpha=0.3)
    axes[1].axhline(85, color="red", ls="--", lw=1, label="85%")
    for ax in axes:
        ax.legend()
    fig.suptitle(title)
    return fig


def learning_rate(steps: list[tuple[float, float | None]]) -> Figure:
    "Learning rate and momentum over steps."
    lr, mom = zip(*steps, strict=True)
    fig, axes = figure(2 if mom[0] is not None else 1)
    axes = np.atleast_1d(axes)
    labels = ("learning rate", "momentum (beta1 where AdamW steps)")
    for ax, values, label in zip(axes, (lr, mom), labels, strict=False):
        ax.plot(values, color=VERMILION, lw=1)
        ax.set(xlabel="step (batch)", ylabel=label)
        ax.grid(alpha=0.3)
    return fig


def lr_find(found: dict) -> Figure:
    "Loss over learning rate, with the suggestions and the recipe's own rate marked."
    fig, ax = figure(width=7)
    ax.plot(found["lr"], found["loss"], color=BLUE, lw=1.5)
    for (name, at), colour, marker in zip(found["suggestions"].items(), (VERMILION, GREEN, ORANGE, "black"), "osD^",
                                          strict=False):
        ax.plot(at["lr"], at["loss"], marker, color=colour, ms=8, label=f"{name} {at['lr']:.2g}")
    ax.axvline(found["recipe"]["lr"], color="black", ls="--", lw=1, label=f"recipe {found['recipe']['lr']:.2g}")
    start, low = found["loss"][0], min(found["loss"])
    ax.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (smoothed)",
           ylim=(low - 0.1 * abs(start), start + 0.7 * (start - low) + 0.1))
    ax.legend()
    ax.grid(alpha=0.3)
    return fig


def confusion(matrix: list[list[int]], vocab, title: str) -> Figure:
    "Confusion matrix in percent of each true class."
    counts = np.array(matrix)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(3 + 0.45 * len(vocab), 14)
    fig, ax = figure(width=side + 1, height=side)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(vocab)), vocab, rotation=45, ha="right")
    ax.set_yticks(range(len(vocab)), vocab)
    ax.set(xlabel="predicted", ylabel="true", title=f"{title}: % of each true class")
    if len(vocab) <= 20:
        for (i, j), s in np.ndenumerate(share):
            if counts[i, j]:
                ax.text(j, i, f"{s * 100:.0f}" if round(s * 100) else "<1", ha="center", va="center", fontsize=8,
                        color="white" if s > 0.5 else "black")
    return fig


def sheet(rows: list[tuple[str, list[np.ndarray], list[str]]], columns: int = 8, side: float = 1.0) -> Figure:
    "Images under headings, `columns` in a line, each with its caption."
    lines = [(heading if i == 0 else "", images[i:i + columns], captions[i:i + columns])
             for heading, images, captions in rows for i in range(0, len(images), columns)]
    heights = [side * (1.6 if heading else 1.35) for heading, *_ in lines]
    fig = Figure(figsize=(columns * side, sum(heights) + 0.1), layout="constrained")
    bands = fig.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
    for band, (heading, images, captions) in zip(bands, lines, strict=True):
        if heading:
            band.suptitle(heading, fontsize=9, x=0.01, ha="left")
        axes = np.atleast_1d(band.subplots(1, columns))
        for ax in axes:
            ax.axis("off")
        for ax, image, caption in zip(axes, images, captions, strict=False):
            ax.imshow(image, interpolation="nearest")
            ax.set_title(caption, fontsize=6.5, pad=2)
    return fig


KINDS = {  # of points: legend, colour, marker, filled
    "ours": ("ours", BLUE, "o", True),
    "published": ("systems under the same rules, stated by their authors, selected on test", VERMILION, "s", False),
    "public": ("public nets under other rules, stated by others", GREEN, "^", False),
}


def tradeoffs(points: pd.DataFrame, title: str = "", stated: tuple[str, float] | None = None,
              target: float | None = None) -> Figure:
    """Accuracy against what it costs: parameters, multiply-adds, seconds. What was run here is filled, the rest hollow.

    `points` has label, kind, accuracy and std in percent, parameters, multiply_adds, seconds; `stated` is an accuracy
    of which nothing else is known.
    """
    fig, axes = figure(3, width=5, height=5.4)
    costs = (("parameters", 1e3, "parameters (thousands)", "linear"),
             ("multiply_adds", 1e6, "multiply-adds an image (millions, log scale)", "log"),
             ("seconds", 1, "training, on the hardware of each (seconds, log scale)", "log"))
    for ax, (cost, unit, label, scale) in zip(axes, costs, strict=True):
        for kind, (legend, colour, marker, filled) in KINDS.items():
            own = points[(points["kind"] == kind) & points[cost].notna()]
            if (points["std"][points["kind"] == kind] > 0).any():
                legend += " (mean ± standard deviation over seeds)"
            if (points["kind"] == kind).any():
                ax.plot(own[cost] / unit, own["accuracy"], marker, color=colour, ms=7, label=legend, zorder=3,
                        mfc=colour if filled else "white")
                ax.errorbar(own[cost] / unit, own["accuracy"], own["std"], fmt="none", color=colour, capsize=3, lw=1)
        if target:
            ax.axhline(target, color="red", ls="--", lw=1, label=f"{target:.0f} %")
        if stated:
            ax.axhline(stated[1], color="black", ls=":", lw=1, label=f"{stated[1]} %: {stated[0]}, its size not stated")
        ax.set(xscale=scale, xlabel=label)
        if scale == "log":
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(lambda x, _: f"{x:,g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(x=0.15, y=0.1)
        ax.grid(alpha=0.3)
        if ax is not axes[0]:
            ax.sharey(axes[0])
    axes[0].set_ylabel("accuracy (%)")
    fig.suptitle(title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    fig.draw_without_rendering()  # from here on nothing moves, so names can be placed
    for ax, (cost, unit, *_) in zip(axes, costs, strict=True):
        own = points[points[cost].notna()]
        place(ax, [(p[cost] / unit, p["accuracy"], p["std"] if p["std"] > 0 else 0, p["label"], KINDS[p["kind"]][1])
                   for _, p in own.iterrows()])
    fig.set_layout_engine("none")
    return fig
