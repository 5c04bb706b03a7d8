"""Weather: snow, frost, fog, brightness. Severities of the authors' CIFAR-10-C."""

from __future__ import annotations

import cv2
import numpy as np

from cifar_fast.export.corruptions.shared import line, scale


def snow(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    "Flakes, the brightest part of noise, drawn out as they fall, on a whitened image."
    mean, deviation, size, least, length, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8))[severity - 1]
    side = image.shape[0]
    coarse = max(1, round(side / (size * scale(image))))
    layer = rng.normal(mean, deviation, (side, side)).astype(np.float32)[:coarse, :coarse]
    layer = cv2.resize(layer, (side, side), interpolation=cv2.INTER_LINEAR)
    layer = np.clip(np.where(layer < least, 0, layer), 0, 1)
    kernel = line(length * scale(image), sigma * scale(image), rng.uniform(45, 135))
    layer = cv2.filter2D(layer, -1, kernel, borderType=cv2.BORDER_REFLECT_101)[..., None]
    pixels = image.astype(np.float32) / 255
    white = np.maximum(pixels, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5)
    return (kept * pixels + (1 - kept) * white + layer + layer[::-1, ::-1]) * 255


def frost(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    "Needles of ice, bluish white, over the image. The authors blend six photographs, which are not at hand."
    kept, ice = ((1, 0.2), (0.95, 0.3), (0.9, 0.4), (0.8, 0.5), (0.7, 0.6))[severity - 1]
    return kept * image + ice * 255 * crystals(image.shape[0], rng)[..., None] * np.array([0.82, 0.92, 1.0])


def crystals(side: int, rng: np.random.Generator) -> np.ndarray:
    "(side, side) float32 in 0 … 1: strokes in a few directions, where clouds of ice are."
    strokes = np.zeros((side, side), np.float32)
    for angle in rng.uniform(0, 180, 4):
        drops = (rng.random((side, side)) > 0.9).astype(np.float32)
        strokes = np.maximum(strokes, cv2.filter2D(drops, -1, line(side / 4, side / 8, angle)))
    strokes /= max(strokes.max(), 1e-6)
    return np.clip(0.75 * clouds(side, 2.0, rng) + 0.6 * strokes, 0, 1)


def fog(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    thick, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    pixels = image / 255
    brightest = max(pixels.max(), 1 / 255)
    mist = clouds(image.shape[0], decay, rng)[..., None]
    return (pixels + thick * mist) * brightest / (brightest + thick) * 255


def clouds(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    "(side, side) float32 from 0 to 1: noise at every scale, `decay` times as weak at half the size."
    total, cells, weight = np.zeros((side, side), np.float32), 2, 1.0
    while cells <= 2 * side:
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        total += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight / decay
    total -= total.min()
    return total / max(total.max(), 1e-6)


def brightness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    # Of the value in HSV; Albumentations adds to red, green and blue or multiplies them.
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.minimum(hsv[..., 2] + added, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
