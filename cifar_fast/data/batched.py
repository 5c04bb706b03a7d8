"""Pad, crop and flip for a whole batch at once: the same distribution of pictures that Albumentations draws one by one.

Albumentations makes 14,000 pictures a second of this commonest pipeline through the DataLoader, this twin several times
as many (`python -m cifar_fast bench data`). Any other pipeline goes picture by picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import albumentations as A
import numpy as np

BORDERS = {0: "constant", 1: "edge", 2: "symmetric", 4: "reflect"}
"OpenCV's border modes by NumPy's names; OpenCV's REFLECT_101 is NumPy's reflect."


class PadCropFlip:
    "Pads every picture evenly, crops a random part and mirrors a share of them."

    def __init__(self, pad: tuple[int, int] | None, border: str, crop: tuple[int, int] | None, flip: float):
        self.pad, self.border, self.crop, self.flip = pad, border, crop, flip

    def __call__(self, pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        "(N, H, W, C) → (N, h, w, C), of the same dtype; `rng` draws offsets and mirrors."
        n, *size = pictures.shape[:3]
        # A crop of a mirrored border is a matter of which rows and columns are read: nothing has to be padded for it.
        sources = [self.source(side, to) for side, to in zip(size, self.pad or size, strict=True)]
        if self.border == "constant":
            margins = [((to - side) // 2, to - side - (to - side) // 2) if to > side else (0, 0)
                       for side, to in zip(size, self.pad or size, strict=True)]
            pictures = np.pad(pictures, ((0, 0), *margins, (0, 0)))
        height, width = self.crop or (len(sources[0]), len(sources[1]))
        if height > len(sources[0]) or width > len(sources[1]):
            raise ValueError(f"a crop of {height}×{width} is larger than the pictures, {len(sources[0])}×"
                             f"{len(sources[1])}; pad them first")
        top = rng.integers(0, len(sources[0]) - height + 1, (n, 1))
        left = rng.integers(0, len(sources[1]) - width + 1, (n, 1))
        rows, columns = top + np.arange(height), left + np.arange(width)
        mirrored = rng.random(n) < self.flip
        columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
        return pictures[np.arange(n)[:, None, None], sources[0][rows][:, :, None], sources[1][columns][:, None, :]]

    def source(self, side: int, to: int) -> np.ndarray:
        "Which row (or column) of the picture each one of the padded picture shows."
        before = max(to - side, 0) // 2
        if self.border == "constant":  # those are really padded
            return np.arange(max(side, to))
        return np.pad(np.arange(side), (before, max(to - side, 0) - before), mode=self.border)


def batched(transforms: Sequence) -> PadCropFlip | None:
    "The twin of a pipeline that pads, crops and flips (any of the three, in this order); None for any other."
    rest, found = list(transforms), {"pad": None, "border": "reflect", "crop": None, "flip": 0.0}
    if rest and is_plain_pad(rest[0]):
        pad = rest.pop(0)
        found |= {"pad": (pad.min_height, pad.min_width), "border": BORDERS[pad.border_mode]}
    if rest and type(rest[0]) is A.RandomCrop and rest[0].p == 1 and not rest[0].pad_if_needed:
        crop = rest.pop(0)
        found["crop"] = (crop.height, crop.width)
    if rest and type(rest[0]) is A.HorizontalFlip:
        found["flip"] = rest.pop(0).p
    return None if rest or not list(transforms) else PadCropFlip(**found)


def is_plain_pad(t) -> bool:
    "A centred, certain padding to a given size with a mirrored, repeated or black border."
    return (type(t) is A.PadIfNeeded and t.p == 1 and t.position == "center" and t.border_mode in BORDERS
            and t.min_height is not None and t.min_width is not None
            and (t.border_mode != 0 or not np.any(t.fill)))
