"""Pairs of images that are nearly the same, as a figure: those just inside the threshold and those just outside."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cifar_fast.export.duplicates.find import Found
from cifar_fast.reporting.plots import image_grid

MOST = 24  # pairs of each kind
COLUMNS = 8


def figure_of_pairs(found: Found, train, test) -> Figure | None:
    "Each pair side by side: the image of test, the one of train; None where there are none. (N, S, S, 3) uint8."
    sections = [(heading, [beside(test[pair.test], train[pair.train]) for pair in pairs],
                 [f"{pair.detail:.2f} {pair.found_by}" for pair in pairs])
                for heading, pairs in (("listed, the least alike last", found.pairs[-MOST:]),
                                       ("not listed, the most alike first", found.missed[:MOST])) if pairs]
    return image_grid(sections, COLUMNS, side=1.25, tall=0.5) if sections else None


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    gap = np.full((one.shape[0], max(1, one.shape[0] // 16), 3), 255, np.uint8)
    return np.hstack([np.asarray(one), gap, np.asarray(other)])
