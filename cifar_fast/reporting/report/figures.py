"""Figures of one trained net: classes, calibration, its surest mistakes, its layers, what it was fed."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cifar_fast.export.predictions import Predictions
from cifar_fast.reporting.plots import BLUE, GREEN, ORANGE, figure, sheet
from cifar_fast.reporting.report.calibration import BINS, bins, calibration_error

MOST_CLASSES = 40  # in the figure of classes; of more, the worst
MISTAKES = 24


def classes(per_class: dict[str, float | None], title: str) -> Figure:
    "Accuracy of each class, the worst at the bottom."
    known = sorted(((share, name) for name, share in per_class.items() if share is not None), reverse=True)
    known = known[-MOST_CLASSES:]
    fig, ax = figure(width=6.4, height=1.2 + 0.28 * len(known))
    shares = [share * 100 for share, _ in known]
    ax.barh(range(len(known)), shares, color=BLUE)
    ax.set_yticks(range(len(known)), [name for _, name in known])
    ax.invert_yaxis()
    for at, share in enumerate(shares):
        inside = share > 12
        ax.text(share - 1 if inside else share + 1, at, f"{share:.1f}", va="center", fontsize=8,
                ha="right" if inside else "left", color="white" if inside else "black")
    ax.set(xlim=(0, 100), xlabel="accuracy of the class (%)", title=title)
    return fig


def calibration(said: Predictions, title: str) -> Figure:
    "Accuracy over confidence, with the share of images in each bin below."
    found, fig = bins(said.probabilities, said.correct), Figure(figsize=(5.2, 4.6), layout="constrained")
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ax.plot([0, 100], [0, 100], ls="--", color="black", lw=1, label="as sure as right")
    ax.bar((found["bin"] + 0.5) / BINS * 100, found["accuracy"] * 100, width=100 / BINS, color=BLUE, edgecolor="white",
           label="this net")
    ax.plot(found["confidence"] * 100, found["accuracy"] * 100, "o", color=ORANGE, ms=4, label="mean of the bin")
    error = calibration_error(said.probabilities, said.correct)
    ax.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100), title=f"{title}: calibration error {error:.1%}")
    ax.legend(loc="upper left", fontsize=8)
    below.bar((found["bin"] + 0.5) / BINS * 100, found["count"] / found["count"].sum() * 100, width=100 / BINS,
              color=GREEN, edgecolor="white")
    below.set(xlabel="confidence: probability of the predicted class (%)", ylabel="images (%)")
    return fig


def mistakes(said: Predictions, images: np.ndarray, title: str) -> Figure | None:
    "The most confident wrong predictions. images (N, H, W, 3) uint8, in the order of `said`; None where all is right."
    wrong = np.flatnonzero(~said.correct)
    if not len(wrong):
        return None
    sure = said.probabilities[wrong, said.predicted[wrong]]
    chosen = wrong[np.argsort(-sure, kind="stable")][:MISTAKES]
    captions = [f"{short(said.vocab[said.predicted[i]])} {said.probabilities[i, said.predicted[i]]:.0%}\n"
                f"is: {short(said.vocab[said.labels[i]])}" for i in chosen]
    heading = f"{title}: taken for, with its confidence; below it, what it is"
    return sheet([(heading, [images[i] for i in chosen], captions)])


def layers(rows: list[list[str]], title: str) -> Figure:
    "The table of layers as an image; `rows` as `constraints.layer_rows` gives them, the first one the heading."
    body = [[cell if len(cell) < 34 else f"…{cell[-32:]}" for cell in row] for row in rows]
    fig = Figure(figsize=(9.6, 0.7 + 0.2 * len(body)), layout="constrained")
    ax = fig.subplots()
    ax.axis("off")
    table = ax.table(cellText=body[1:], colLabels=body[0], cellLoc="right", colLoc="right", loc="upper center",
                     colWidths=[0.30, 0.22, 0.14, 0.10, 0.10, 0.07, 0.07])
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set_linewidth(0)
        cell.set_facecolor("#e8eef4" if row == 0 else "#f7f7f7" if row % 2 else "white")
        if column < 3:
            cell.set_text_props(ha="left")
    ax.set_title(title, fontsize=10)
    return fig


def short(name: str, most: int = 13) -> str:
    return name if len(name) <= most else name[:most - 1] + "…"
