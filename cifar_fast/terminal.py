"""Curves drawn in characters, by plotext."""

from __future__ import annotations

import pandas as pd


def curve(x, y, title: str, xlabel: str, width: int = 78, height: int = 15) -> str:
    "The line y(x) as plain text of `height` lines, without colours."
    return curves([(x, y, "braille")], title, xlabel, width, height)


def epochs_drawn(frame: pd.DataFrame, target: float = 0.85) -> str:
    "Accuracy by epoch, on training pictures and (where there are such) on validation, with the target as a line."
    epochs = frame["epoch"]
    lines = [([epochs.iloc[0], epochs.iloc[-1]], [target * 100] * 2, "-")]
    title = "accuracy (%):  ⣀⡠ train"
    lines.append((epochs, frame["train_accuracy"] * 100, "braille"))
    if "valid_accuracy" in frame:
        title += "  • validation"
        lines.append((epochs, frame["valid_accuracy"] * 100, "dot"))
    return curves(lines, f"{title}  - {target:.0%}", "epoch")


def curves(lines, title: str, xlabel: str, width: int = 78, height: int = 15) -> str:
    "Several (x, y, mark), told apart by their marks, since there are no colours."
    import plotext

    fig = plotext.figure
    fig.clear()
    fig.plot_size(width, height)
    for x, y, mark in lines:
        fig.draw(fig.signal(list(x), list(y), marker=mark).lines())
    fig.title(title)
    fig.label(xlabel)
    return plotext.uncolorize(fig.build().string()).rstrip()
