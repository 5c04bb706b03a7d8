"""What several corruptions share: lengths at the size of an image, one Albumentations transform a setting."""

from __future__ import annotations

import numpy as np

TRANSFORMS = {}  # of Albumentations, by kind and settings: to build one takes longer than to use it
SIDE = 32  # pixels; lengths are given for images of this side and grow with it


def scale(image: np.ndarray) -> float:
    "By which lengths in pixels are multiplied."
    return image.shape[0] / SIDE


def albumentations(image: np.ndarray, rng: np.random.Generator, kind: str, **settings) -> np.ndarray:
    "The image after the transform `kind`, with draws that follow from `rng`."
    key = f"{kind} {settings}"
    if key not in TRANSFORMS:
        import albumentations as A

        TRANSFORMS[key] = getattr(A, kind)(p=1.0, **settings)
    TRANSFORMS[key].set_random_seed(int(rng.integers(2**31)))
    return TRANSFORMS[key](image=image)["image"]


def line(length: float, sigma: float, degrees: float) -> np.ndarray:
    "A kernel: Gaussian weights on one side of a point along a line, as a moving camera gives. Sums to 1, float32."
    reach = int(np.ceil(length))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    steps = np.arange(0, length + 0.125, 0.25)
    x, y = reach + steps * np.cos(np.radians(degrees)), reach + steps * np.sin(np.radians(degrees))
    weights = np.exp(-steps**2 / (2 * sigma**2))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):  # each step is shared out to the four pixels around it
        part = weights * (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
        here = (top + dy <= 2 * reach) & (left + dx <= 2 * reach)
        np.add.at(kernel, (top[here] + dy, left[here] + dx), part[here])
    return kernel / kernel.sum()
