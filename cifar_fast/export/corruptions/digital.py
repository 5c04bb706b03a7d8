"""Digital: contrast, elastic deformation, coarse pixels, JPEG."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from cifar_fast.export.corruptions.shared import albumentations, scale


def contrast(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]  # of the distance to the mean of the image, by colour
    mean = image.mean((0, 1))
    return (image - mean) * kept + mean


def elastic(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    shift = (0.3, 0.5, 0.7, 0.9, 1.1)[severity - 1] * scale(image)
    sigma = max(1.0, 1.5 * scale(image))  # Albumentations takes no less
    # Uniform noise in -1 … 1, smoothed with sigma, has a deviation of 1 / sqrt(3) / (2 sqrt(pi) sigma).
    strength = shift * 3**0.5 * 2 * np.pi**0.5 * sigma  # so that a pixel is moved by `shift`, as a standard deviation
    return albumentations(image, rng, "ElasticTransform", alpha=float(strength), sigma=sigma,
                          noise_distribution="uniform", border_mode=cv2.BORDER_REFLECT_101)


def pixelate(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Albumentations' nearest neighbours lie up to a pixel off, which damages more than the coarse pixels do.
    left = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]  # of the pixels along a side
    whole, side = Image.fromarray(image), int(image.shape[0] * left)
    return np.array(whole.resize((side, side), Image.Resampling.BOX).resize(whole.size, Image.Resampling.BOX))


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return compressed(image, (80, 65, 58, 50, 40)[severity - 1])


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    "The image after JPEG. Albumentations takes red for blue in it, which weighs its colours wrongly."
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality)
    with Image.open(content, formats=("JPEG",)) as read:
        return np.array(read)
