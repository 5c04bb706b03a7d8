"""Corrupted images in a report: accuracy by corruption and severity, and what the corruptions look like."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cifar_fast.export.card_checks import Corruptions
from cifar_fast.export.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cifar_fast.reporting.plots import BLUE, VERMILION, set_title
from cifar_fast.utils.tables import aligned

SHOWN = (1, 3, 5)  # severities in the figure of examples


def words(name: str) -> str:
    "gaussian_noise → gaussian noise; JPEG as it is written."
    return name.replace("_", " ").replace("jpeg", "JPEG")


def corruption_rows(found: Corruptions) -> list[list[str]]:
    "Accuracy by corruption and severity, with its heading and the mean."
    body = [[words(name), *map(percent, values), percent(found.means[name])]
            for name, values in found.severities.items()]
    columns = zip(*found.severities.values(), strict=True)
    every = [percent(sum(column) / len(column)) for column in columns]
    return [["corruption", *map(str, SEVERITIES), "mean"], *body, ["mean", *every, percent(found.mean)]]


def jpeg_rows(found: Corruptions) -> list[list[str]]:
    return [["JPEG quality", *found.jpeg], ["accuracy", *map(percent, found.jpeg.values())]] if found.jpeg else []


def percent(accuracy: float) -> str:
    return f"{accuracy:.1%}"


def corruptions_text(found: Corruptions) -> str:
    "For a terminal."
    jpeg = ["", *aligned(jpeg_rows(found), left=0)] if found.jpeg else []
    return "\n".join([*aligned(corruption_rows(found), left=0), *jpeg, "", str(found)])


def figure_of_corruptions(found: Corruptions, title: str) -> Figure:
    "Left the accuracy at each severity, right that by JPEG quality; the accuracy on clean images is dashed."
    fig = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(2.2, 1))
    values = np.array(list(found.severities.values())) * 100
    left.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        left.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8.5,
                  color="black" if value > 60 else "white")
    left.set_yticks(range(len(values)), [f"{words(name)}   {found.means[name]:.1%}" for name in found.severities])
    left.set_xticks(range(len(SEVERITIES)), SEVERITIES)
    left.set(xlabel="severity", title="accuracy (%), beside each name its mean")
    right.plot([int(quality) for quality in found.jpeg], [100 * value for value in found.jpeg.values()], "o-",
               color=BLUE)
    right.axhline(found.clean * 100, color=VERMILION, ls="--", lw=1, label=f"as they are {found.clean:.1%}")
    right.set(xlabel="JPEG quality", ylabel="accuracy (%)", xlim=(95, 5), ylim=(0, 100))
    right.legend(loc="lower left", fontsize=9)
    right.grid(alpha=0.3)
    set_title(fig, f"{title}: {found.mean:.1%} mean accuracy on corrupted images (n = {found.n:,})")
    return fig


def figure_of_examples(image: np.ndarray, seed: int = 0, row: int = 0) -> Figure:
    "An image (S, S, 3) uint8 as every corruption shows it at a few severities."
    fig = Figure(figsize=(len(CORRUPTIONS) * 0.98, 1.08 * (len(SHOWN) + 1)), layout="constrained")
    axes = fig.subplots(len(SHOWN) + 1, len(CORRUPTIONS))
    for column, name in zip(axes.T, CORRUPTIONS, strict=True):
        column[0].set_title(words(name).replace(" ", "\n"), fontsize=8)
        for ax, severity in zip(column, (0, *SHOWN), strict=True):
            ax.imshow(corrupt(image, name, severity, seed, row) if severity else image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
    for ax, severity in zip(axes[:, 0], ("as it is", *SHOWN), strict=True):
        ax.set_ylabel(f"severity {severity}" if severity in SHOWN else severity, fontsize=8)
    return fig
