"""What is drawn in an image, whatever its brightness, colours, contrast and background: by this copies are known."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

SIDE, COARSE = 32, 16  # pixels of a side: of the detail that is compared, and of that which is searched
SHIFT = 3  # pixels that a copy may be moved by
FLAT = 1e-3  # standard deviation of detail below which there is none
FLOOR = 5.0  # grey levels: where an image is flatter than this, its noise is not made larger


def detail(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 → (32, 32) float32: grey less its surroundings, over the contrast there.

    Sky, sea and lawns become nothing, or any two ships at the horizon would be copies.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    if grey.shape[0] != SIDE:
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey -= cv2.GaussianBlur(grey, (0, 0), 3)
    return cv2.GaussianBlur(grey / np.sqrt(cv2.GaussianBlur(grey**2, (0, 0), 4) + FLOOR**2), (0, 0), 0.8)


def signatures(images: Iterable[np.ndarray]) -> np.ndarray:
    "(N, 256) float32 of length 1, whose products are correlations of detail."
    return unit(np.stack([cv2.resize(detail(image), (COARSE, COARSE), interpolation=cv2.INTER_AREA).ravel()
                          for image in images]), centre=True)


def mirrored(values: np.ndarray, side: int) -> np.ndarray:
    "(N, C * side * side) → those of the mirror images."
    return np.ascontiguousarray(values.reshape(len(values), -1, side, side)[..., ::-1]).reshape(len(values), -1)


def unit(values: np.ndarray, centre: bool = False) -> np.ndarray:
    values = values - values.mean(1, keepdims=True) if centre else values
    return (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the detail of two images in -1 … 1, at the best shift, mirrored or not.

    0 where one of them has no detail; OpenCV would give 1 for any image and one of a single colour.
    """
    whole, inner = detail(one), slice(SHIFT, SIDE - SHIFT)
    parts = [detail(image)[inner, inner] for image in (other, other[:, ::-1])]
    if min(whole.std(), parts[0].std()) < FLAT:
        return 0.0
    return max(float(cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED).max()) for part in parts)
