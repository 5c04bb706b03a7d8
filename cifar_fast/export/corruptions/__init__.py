"""The fifteen usual corruptions at five severities (Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019), made here from their descriptions.

The images are not those of CIFAR-10-C: the random draws are other ones, frost is drawn instead of photographed, and
where a severity of the authors damages an image less than the one before (glass_blur, frost, elastic) severities were
set anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from cifar_fast.export.corruptions import blur, digital, noise, weather
from cifar_fast.utils.seeds import derive

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"(image (S, S, 3) uint8, severity 1 to 5, draws) → the same shape and type, or float in 0 … 255."

CORRUPTIONS: dict[str, Corruption] = {corruption.__name__: corruption for corruption in (
    noise.gaussian_noise, noise.shot_noise, noise.impulse_noise,
    blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur,
    weather.snow, weather.frost, weather.fog, weather.brightness,
    digital.contrast, digital.elastic, digital.pixelate, digital.jpeg)}
"By name, in the order of the paper."

SEVERITIES = (1, 2, 3, 4, 5)
QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)  # of JPEG, a table of its own


def corrupt(
    image: np.ndarray,  # (S, S, 3) uint8
    name: str,  # one of CORRUPTIONS
    severity: int,  # 1 to 5
    seed: int = 0,
    row: int = 0,  # of the image in its data set: each gets its own draws, whichever others are measured
) -> np.ndarray:  # (S, S, 3) uint8
    "A corrupted copy; all severities of an image use the same draws. KeyError, ValueError for one that there is not."
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity}: from {SEVERITIES[0]} to {SEVERITIES[-1]}")
    rng = np.random.default_rng(derive(seed, zlib.crc32(name.encode()), row))
    return as_bytes(CORRUPTIONS[name](image, severity, rng))


def as_bytes(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else np.clip(np.rint(values), 0, 255).astype(np.uint8)


__all__ = ["CORRUPTIONS", "QUALITIES", "SEVERITIES", "Corruption", "corrupt"]
