"""Curves drawn in characters, by plotext."""

from __future__ import annotations

import math

import pandas as pd


def curve(x, y, title: str, xlabel: str, width: int = 78, height: int = 15) -> str:
    "The line y(x) as plain text of `width` columns and `height` lines."
    return curves([(x, y, "braille")], title, xlabel, width, height)


def accuracy_curves(frame: pd.DataFrame, target: float | None = None) -> str:
    "Accuracy by epoch on training images and, where a run has such, on validation; the target as a line."
    epochs = frame["epoch"]
    lines = [(epochs, frame["train_accuracy"] * 100, "braille")]
    title = "accuracy (%):  ⣀⡠ train"
    if "valid_accuracy" in frame:
        title += "  • validation"
        lines.append((epochs, frame["valid_accuracy"] * 100, "dot"))
    if target:
        title += f"  - target {target * 100:g}%"
        lines.insert(0, ([epochs.iloc[0], epochs.iloc[-1]], [target * 100] * 2, "-"))
    return curves(lines, title, "epoch", ticks=whole_ticks(epochs))


def whole_ticks(epochs, most: int = 8) -> list[int]:
    "At most `most` of the epochs, evenly spaced, the first and the last among them."
    all_epochs = list(map(int, epochs))
    count = min(most, len(all_epochs))
    step = (all_epochs[-1] - all_epochs[0]) / max(1, count - 1)
    return sorted({round(all_epochs[0] + i * step) for i in range(count)})


def curves(lines, title: str, xlabel: str, width: int = 78, height: int = 15, ticks: list[int] | None = None) -> str:
    """Several lines (x, y, marker) as plain text; without colours, their markers tell them apart.

    Points without a value (NaN) are left out: plotext ends the whole process at one.
    """
    import plotext

    fig = plotext.figure
    fig.clear()
    fig.plot_size(width, height)
    for x, y, marker in lines:
        points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if points:
            fig.draw(fig.signal(*map(list, zip(*points, strict=True)), marker=marker).lines())
    fig.title(title)
    fig.label(xlabel)
    if ticks:
        fig.ruler("x").ticks(ticks, [str(t) for t in ticks])
    return plotext.uncolorize(fig.build().string()).rstrip()
