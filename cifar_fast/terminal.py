"""Curves drawn in characters, by plotext."""

from __future__ import annotations


def curve(x, y, title: str, xlabel: str, width: int = 78, height: int = 15) -> str:
    "The line y(x) as plain text of `height` lines, without colours."
    import plotext

    fig = plotext.figure
    fig.clear()
    fig.plot_size(width, height)
    fig.draw(fig.signal(list(x), list(y), marker="braille").lines())
    fig.title(title)
    fig.label(xlabel)
    return plotext.uncolorize(fig.build().string()).rstrip()
