"""Names beside the points of a plot, each where it covers neither a point nor another name."""

from __future__ import annotations

from math import cos, radians, sin
from typing import NamedTuple

from matplotlib.axes import Axes

RADII = (7, 12, 20, 30, 42, 56, 72, 90, 110)  # from the point to the name, in points; beyond the first with a line
ANGLES = (0, 180, 90, 270, 35, 145, 325, 215, 60, 120, 240, 300)


class Box(NamedTuple):
    "A rectangle in pixels; matplotlib's own takes ten times as long to ask."

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        "The place in this box that is nearest to (x, y)."
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)


def around(x: float, y: float, width: float, height: float) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def place(ax: Axes, points: list[tuple[float, float, float, str, str]], fontsize: float = 8) -> None:
    """Annotate (x, y, error, text, colour); limits and layout must be final.

    Greedy: the point with the most neighbours chooses first, and takes the nearest place that is free.
    """
    scale = ax.figure.dpi / 72
    inside = Box(*ax.bbox.extents)
    at = [tuple(ax.transData.transform((x, y))) for x, y, *_ in points]
    high = [ax.transData.transform((x, y + error))[1] for x, y, error, *_ in points]
    taken = [around(x, y, 12 * scale, 12 * scale + 2 * (top - y)) for (x, y), top in zip(at, high, strict=True)]
    # A name may cross a line over the whole plot, but not where another place is as near.
    levels = [line.get_window_extent().y0 for line in ax.lines if len(line.get_ydata()) == 2
              and len(set(line.get_ydata())) == 1 and line.get_linestyle() != "None"]
    rules = [Box(inside.x0, y - scale, inside.x1, y + scale) for y in levels]
    near = [sum(abs(p[0] - q[0]) < 80 * scale and abs(p[1] - q[1]) < 40 * scale for q in at) for p in at]
    for i in sorted(range(len(points)), key=lambda i: -near[i]):
        x, y, _, text, colour = points[i]
        note = ax.annotate(text, (x, y), (0, 0), textcoords="offset points", ha="center", va="center",
                           fontsize=fontsize, color=colour, annotation_clip=False)
        note.set_in_layout(False)
        size = note.get_window_extent()
        radius, box = best(at[i], size.width + 2 * scale, size.height, inside, taken, rules, scale)
        note.set_position((((box.x0 + box.x1) / 2 - at[i][0]) / scale, ((box.y0 + box.y1) / 2 - at[i][1]) / scale))
        if radius > RADII[0]:
            ax.annotate("", ax.transData.inverted().transform(box.nearest(*at[i])), (x, y), zorder=1,
                        annotation_clip=False,
                        arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "grey", "shrinkA": 4, "shrinkB": 0})
        taken.append(box)


def best(at, width: float, height: float, inside: Box, taken: list[Box], rules: list[Box],
         scale: float) -> tuple[float, Box]:
    "(radius, box) of the place that covers least, the nearest of several."
    found = None
    for step, radius in enumerate(RADII):
        for angle in ANGLES:
            c, s = cos(radians(angle)), sin(radians(angle))
            box = around(at[0] + c * (radius * scale + width / 2), at[1] + s * (radius * scale + height / 2),
                         width, height)
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            cost = (100 * outside + 10 * sum(box.overlaps(other) for other in taken)
                    + sum(box.overlaps(rule) for rule in rules) + step / 20)
            if found is None or cost < found[0]:
                found = cost, radius, box
    return found[1:]
