"""Tables as text: aligned columns for a terminal, piped rows for Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cifar_fast.utils.text import printable, width


def aligned(
    rows: Sequence[Sequence[str]],  # of equal length; the first one is usually the heading
    left: int | Collection[int] = 1,  # how many of the first columns, or which ones, are flush left
    gap: str = "  ",
) -> list[str]:
    "A line a row: columns as wide as their widest cell; line breaks and terminal escapes in a cell are made visible."
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    at_left = range(left) if isinstance(left, int) else left
    return [gap.join(pad(cell, w, i in at_left) for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in cells]


def pad(text: str, columns: int, at_left: bool = True) -> str:
    space = " " * (columns - width(text))
    return text + space if at_left else space + text


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    "A Markdown table; the first row is the heading. Bars and line breaks in a cell do not end it."
    head, *body = ([printable(cell).replace("|", r"\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])
