"""Noise: of a sensor in low light, of counted photons, of bit errors. Severities of the authors' CIFAR-10-C."""

from __future__ import annotations

import numpy as np

from cifar_fast.export.corruptions.shared import albumentations


def gaussian_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]  # of pixels in 0 … 1
    return albumentations(image, rng, "GaussNoise", std_range=(deviation, deviation))


def shot_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Albumentations draws it in linear light, the authors in pixel values.
    photons = (500, 250, 100, 75, 50)[severity - 1]  # that a white pixel counts
    return rng.poisson(image / 255 * photons) / photons * 255


def impulse_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Salt and pepper in each colour by itself; Albumentations' is in all three at once.
    part = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]  # of the values that become 0 or 255
    hit, salt = rng.random(image.shape), rng.random(image.shape) < 0.5
    return np.where(hit < part, salt * np.uint8(255), image)
