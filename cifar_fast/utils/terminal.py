"""Curves drawn in characters, by plotext."""

from __future__ import annotations

import pandas as pd


def curve(x, y, title: str, xlabel: str, width: int = 78, height: int = 15) -> str:
    "The line y(x) as plain text of `height` lines, without colours."
    return curves([(x, y, "braille")], title, xlabel, width, height)


def epochs_drawn(frame: pd.DataFrame, target: float | None = None) -> str:
    "Accuracy by epoch, on training images and (where there are such) on validation, with a target as a line."
    epochs = frame["epoch"]
    lines = [([epochs.iloc[0], epochs.iloc[-1]], [target * 100] * 2, "-")] if target else []
    title = "accuracy (%):  ⣀⡠ train"
    lines.append((epochs, frame["train_accuracy"] * 100, "braille"))
    if "valid_accuracy" in frame:
        title += "  • validation"
        lines.append((epochs, frame["valid_accuracy"] * 100, "dot"))
    return curves(lines, title + (f"  - {target:.0%}" if target else ""), "epoch", ticks=whole_ticks(epochs))


def whole_ticks(epochs, most: int = 8) -> list[int]:
    "At most so many of them, evenly spaced, the first and the last among them."
    found = list(map(int, epochs))
    step = (found[-1] - found[0]) / max(1, min(most, len(found)) - 1)
    return sorted({round(found[0] + i * step) for i in range(min(most, len(found)))})


def curves(lines, title: str, xlabel: str, width: int = 78, height: int = 15, ticks: list[int] | None = None) -> str:
    "Several (x, y, mark), told apart by their marks, since there are no colours."
    import plotext

    fig = plotext.figure
    fig.clear()
    fig.plot_size(width, height)
    for x, y, mark in lines:
        fig.draw(fig.signal(list(x), list(y), marker=mark).lines())
    fig.title(title)
    fig.label(xlabel)
    if ticks:
        fig.ruler("x").ticks(ticks, [str(t) for t in ticks])
    return plotext.uncolorize(fig.build().string()).rstrip()
