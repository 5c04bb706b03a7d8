"""Pairs of images that are nearly the same, as a figure: those just inside each threshold and those just outside."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cifar_fast.export.duplicates.find import AGREED, ALIKE, Found, Pair
from cifar_fast.reporting.plots import image_grid

MOST = 16  # pairs of each kind
COLUMNS = 8


def figure_of_pairs(found: Found, train, test) -> Figure | None:
    "Each pair side by side: the image of test, the one of train; None where there are none. (N, S, S, 3) uint8."
    sections = [(f"{heading}. Left: test, right: train",
                 [beside(test[pair.test], train[pair.train]) for pair in pairs],
                 [f"{pair.detail:.3f}" + ("" if pair.found_by == "both" else f" by {pair.found_by}") for pair in pairs])
                for heading, pairs in around(found) if pairs]
    return image_grid(sections, COLUMNS, side=1.25, tall=0.5) if sections else None


def around(found: Found) -> list[tuple[str, list[Pair]]]:
    "(heading, pairs) above and below each of the two thresholds, those nearest to it."
    sections = []
    for searches, threshold in (("both searches", AGREED), ("one search", ALIKE)):
        listed, missed = ([pair for pair in pairs if (pair.found_by == "both") == (searches == "both searches")]
                          for pairs in (found.pairs, found.missed))
        sections += [(f"Found by {searches}, listed: correlation of detail from {threshold:g} up", listed[-MOST:]),
                     (f"Found by {searches}, not listed: below {threshold:g}", missed[:MOST])]
    return sections


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    gap = np.full((one.shape[0], max(1, one.shape[0] // 16), 3), 255, np.uint8)
    return np.hstack([np.asarray(one), gap, np.asarray(other)])
