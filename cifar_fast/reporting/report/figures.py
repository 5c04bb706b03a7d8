"""Figures of one trained model: accuracy by class, calibration, its most confident errors, its layers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cifar_fast.export.calibration import BINS, bins, calibration_error, log_loss
from cifar_fast.export.predictions import Predictions
from cifar_fast.reporting.plots import BLUE, GREEN, ORANGE, figure, image_grid, set_title
from cifar_fast.utils.fonts import figure_names
from cifar_fast.utils.text import shorten

MOST_CLASSES = 40  # in the figure of classes; of more, the worst
MOST_ERRORS = 24


def classes(per_class: dict[str, float | None], title: str) -> Figure:
    "Accuracy of each class, the worst at the bottom; a class without images (None) is left out."
    names = figure_names(per_class, 32)
    measured = sorted(((accuracy * 100, name) for name, accuracy in zip(names, per_class.values(), strict=True)
                       if accuracy is not None), reverse=True)
    shown = measured[-MOST_CLASSES:]
    if len(shown) < len(measured):
        title += f": the {len(shown)} worst of {len(measured)} classes"
    fig, ax = figure(width=6.4, height=1.2 + 0.28 * len(shown))
    ax.barh(range(len(shown)), [accuracy for accuracy, _ in shown], color=BLUE)
    ax.set_yticks(range(len(shown)), [name for _, name in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    for row, (accuracy, _) in enumerate(shown):
        inside = accuracy > 12
        ax.text(accuracy - 1 if inside else accuracy + 1, row, f"{accuracy:.1f}", va="center", fontsize=8,
                ha="right" if inside else "left", color="white" if inside else "black")
    ax.set(xlim=(0, 100), xlabel="accuracy (%)")
    set_title(fig, title)
    return fig


def calibration(predictions: Predictions, title: str) -> Figure:
    "Reliability diagram: accuracy over confidence, with the number of images in each bin below."
    table, fig = bins(predictions.probabilities, predictions.correct), Figure(figsize=(5.2, 4.6), layout="constrained")
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ax.plot([0, 100], [0, 100], ls="--", color="black", lw=1, label="perfect calibration")
    centres = (table["bin"] + 0.5) / BINS * 100
    ax.bar(centres, table["accuracy"] * 100, width=100 / BINS, color=BLUE, edgecolor="white", label="this model")
    ax.plot(table["confidence"] * 100, table["accuracy"] * 100, "o", color=ORANGE, ms=4, label="mean of the bin")
    error = calibration_error(predictions.probabilities, predictions.correct)
    ax.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
    loss = log_loss(predictions.probabilities, predictions.labels)
    set_title(fig, f"{title}\nexpected calibration error {error:.1%}, log loss {loss:.3f}")
    ax.legend(loc="upper left", fontsize=8)
    below.bar(centres, table["count"] / table["count"].sum() * 100, width=100 / BINS, color=GREEN, edgecolor="white")
    below.set(xlabel="confidence: probability of the predicted class (%)", ylabel="images (%)")
    return fig


def most_confident_errors(predictions: Predictions, images: np.ndarray, title: str) -> Figure | None:
    """The wrong predictions of highest confidence; None where all are right.

    images (N, H, W, 3) uint8, in the order of `predictions`.
    """
    shown, confidence = predictions.errors[:MOST_ERRORS], predictions.confidence
    if not len(shown):
        return None
    names = figure_names(predictions.vocab, 12)
    captions = [f"{names[predictions.predicted[i]]} {confidence[i]:.0%}\ntrue: {names[predictions.labels[i]]}"
                for i in shown]
    heading = f"{title}: predicted class with its confidence, below it the true class"
    return image_grid([(heading, [images[i] for i in shown], captions)])


def layers(rows: list[list[str]], title: str) -> Figure:
    "The table of layers as an image; `rows` as `audit.layer_rows` returns them, the first one the heading."
    body = [[shorten(cell, 33, head=0) for cell in row] for row in rows]
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
    set_title(fig, title, fontsize=10)
    return fig
