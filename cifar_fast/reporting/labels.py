"""Names next to the points of a plot, placed so that none covers a point or another name.

Our own placement: a plot of 18 points in a few clusters has room for every name, and a search over fixed places finds
it, where adjustText's forces leave names on markers and outside the axes.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import NamedTuple

from matplotlib.axes import Axes

from cifar_fast.utils.fonts import drawable

RADII = (7, 12, 20, 30, 42, 56, 72, 90, 110)  # from the point to the name, in points; beyond the first with a line
ANGLES = (0, 180, 90, 270, 35, 145, 325, 215, 60, 120, 240, 300)  # in order of preference
MARKER = 12  # width and height that a marker takes, in points


class Box(NamedTuple):
    "A rectangle in pixels; matplotlib's own is ten times slower to test for overlaps."

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def contains(self, other: Box) -> bool:
        return self.x0 <= other.x0 and other.x1 <= self.x1 and self.y0 <= other.y0 and other.y1 <= self.y1

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        "The position in this box that is nearest to (x, y)."
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)


def box_around(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def place_names(ax: Axes, points: list[tuple[float, float, float, str, str]], fontsize: float = 8) -> None:
    """Annotate (x, y, half height of the error bar, name, colour); limits and layout must be final.

    Greedy: the point with the most neighbours chooses first, and takes the nearest free position.
    """
    scale = ax.figure.dpi / 72
    centres = [tuple(ax.transData.transform((x, y))) for x, y, *_ in points]
    tops = [ax.transData.transform((x, y + error))[1] for x, y, error, *_ in points]
    taken = [box_around(x, y, MARKER * scale, MARKER * scale + 2 * (top - y))
             for (x, y), top in zip(centres, tops, strict=True)]
    lines = horizontal_lines(ax, scale)
    crowded = [sum(abs(p[0] - q[0]) < 80 * scale and abs(p[1] - q[1]) < 40 * scale for q in centres) for p in centres]
    for i in sorted(range(len(points)), key=lambda i: -crowded[i]):
        x, y, _, name, colour = points[i]
        name, fonts = drawable(name)
        note = ax.annotate(name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center",
                           fontsize=fontsize, color=colour, annotation_clip=False, parse_math=False, fontfamily=fonts)
        note.set_in_layout(False)
        size = note.get_window_extent()
        radius, box = best_position(centres[i], size.width + 2 * scale, size.height, Box(*ax.bbox.extents), taken,
                                    lines, scale)
        note.set_position((((box.x0 + box.x1) / 2 - centres[i][0]) / scale,
                           ((box.y0 + box.y1) / 2 - centres[i][1]) / scale))
        if radius > RADII[0]:
            ax.annotate("", ax.transData.inverted().transform(box.nearest(*centres[i])), (x, y), zorder=1,
                        annotation_clip=False,
                        arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "grey", "shrinkA": 4, "shrinkB": 0})
        taken.append(box)


def horizontal_lines(ax: Axes, scale: float) -> list[Box]:
    "The lines across the whole plot, which a name crosses only where no other position is as near."
    heights = [line.get_window_extent().y0 for line in ax.lines if len(line.get_ydata()) == 2
               and len(set(line.get_ydata())) == 1 and line.get_linestyle() != "None"]
    return [Box(ax.bbox.x0, y - scale, ax.bbox.x1, y + scale) for y in heights]


def best_position(centre: tuple[float, float], width: float, height: float, axes: Box, taken: list[Box],
                  lines: list[Box], scale: float) -> tuple[float, Box]:
    "(radius, box) of the position that covers least, the nearest of several."
    best = None
    for step, radius in enumerate(RADII):
        for angle in ANGLES:
            c, s = cos(radians(angle)), sin(radians(angle))
            x, y = centre[0] + c * (radius * scale + width / 2), centre[1] + s * (radius * scale + height / 2)
            box = box_around(x, y, width, height)
            cost = (100 * (not axes.contains(box)) + 10 * sum(box.overlaps(other) for other in taken)
                    + sum(box.overlaps(line) for line in lines) + step / 20)
            if best is None or cost < best[0]:
                best = cost, radius, box
    return best[1:]
