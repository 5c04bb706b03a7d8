"""Blur: out of focus, through frosted glass, of a moving camera, of one that approaches."""

from __future__ import annotations

import cv2
import numpy as np

from cifar_fast.export.corruptions.shared import albumentations, line, scale

FINE = 8  # points along a pixel's side that decide how much of it a disk covers


def defocus_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Albumentations' disk has a radius in whole pixels, too coarse for 32 of them.
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]  # of disk and soft edge
    return cv2.filter2D(image.astype(np.float32), -1, disk(radius * scale(image), sigma * scale(image)),
                        borderType=cv2.BORDER_REFLECT_101)


def disk(radius: float, sigma: float) -> np.ndarray:
    "A kernel: how much of each pixel a disk covers, its edge blurred. Sums to 1, float32."
    reach = int(np.ceil(radius + 2 * sigma))
    points = (np.arange((2 * reach + 1) * FINE) + 0.5) / FINE - reach - 0.5
    inside = (points[:, None]**2 + points[None]**2 <= radius**2).astype(np.float32)
    kernel = cv2.resize(inside, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA)
    kernel = cv2.GaussianBlur(kernel, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return kernel / kernel.sum()


def glass_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # More blur would hide the swaps again, so that only their rounds grow.
    return albumentations(image, rng, "GlassBlur", sigma=0.6 * scale(image), max_delta=max(1, round(scale(image))),
                          iterations=severity)


def motion_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Albumentations' line has a length in odd pixels and weighs all of them alike.
    length, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    kernel = line(length * scale(image), sigma * scale(image), rng.uniform(-45, 45))
    return cv2.filter2D(image.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def zoom_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    most = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]  # the mean of the image at all magnifications up to this
    return albumentations(image, rng, "ZoomBlur", max_factor=(most, most), step_factor=(0.01, 0.01))
