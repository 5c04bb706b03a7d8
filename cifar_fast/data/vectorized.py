"""Pads, crops and flips whole batches: the same distribution of images as Albumentations gives one by one.

Any other pipeline goes through Albumentations image by image.
"""

from collections.abc import Sequence

import albumentations as A
import numpy as np
import torch

from cifar_fast.data.errors import DataError

BORDERS = {0: "constant", 1: "edge", 2: "symmetric", 4: "reflect"}
"OpenCV's border modes by NumPy's names; OpenCV's REFLECT_101 is NumPy's reflect."


class PadCropFlip:
    "Pads every image evenly, crops a random part and flips a fraction of the images horizontally."

    def __init__(self, pad: tuple[int, int] | None, border: str, crop: tuple[int, int] | None, flip: float):
        self.pad, self.border, self.crop, self.flip = pad, border, crop, flip

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        "(N, H, W, C) → (N, h, w, C), by one gather of pixels on the images' device; `rng` samples crops and flips."
        n, height, width, channels = images.shape
        rows, columns = self.sample(n, height, width, rng)
        places = torch.from_numpy(np.concatenate([rows, columns], axis=1)).to(images.device)
        rows, columns = places.split([rows.shape[1], columns.shape[1]], dim=1)  # (N, h), (N, w); -1 is black
        first = torch.arange(n, device=images.device)[:, None] * height  # the rows of all images, concatenated
        pixels = ((first + rows.clamp(0)) * width)[:, :, None] + columns.clamp(0)[:, None, :]
        out = images.reshape(-1, channels).index_select(0, pixels.flatten()).view(*pixels.shape, channels)
        if self.border == "constant":
            out *= ((rows >= 0)[:, :, None] & (columns >= 0)[:, None, :])[..., None]
        return out

    def sample(self, n: int, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        "Which row (N, h) and which column (N, w) of its image every place of the output shows; -1 for black."
        rows, columns = (self.padded(side, i) for i, side in enumerate((height, width)))
        h, w = self.crop or (len(rows), len(columns))
        if h > len(rows) or w > len(columns):
            raise DataError(f"a crop of {h}×{w} is larger than the images, {len(rows)}×{len(columns)}; pad them first")
        top, left = rng.integers(0, len(rows) - h + 1, n), rng.integers(0, len(columns) - w + 1, n)
        flipped = rng.random(n) < self.flip
        across = np.where(flipped[:, None], np.arange(w)[::-1], np.arange(w))
        return rows[top[:, None] + np.arange(h)], columns[left[:, None] + across]

    def padded(self, side: int, axis: int) -> np.ndarray:
        "For each row (or column) of a padded image its source row in the image, -1 for black."
        more = max(0, self.pad[axis] - side) if self.pad else 0
        black = {"constant_values": -1} if self.border == "constant" else {}
        return np.pad(np.arange(side), (more // 2, more - more // 2), mode=self.border, **black)


def vectorized(transforms: Sequence) -> PadCropFlip | None:
    "The same pipeline for whole batches where it pads, crops and flips (any of the three, in this order), else None."
    rest, settings = list(transforms), {"pad": None, "border": "reflect", "crop": None, "flip": 0.0}
    if rest and is_plain_pad(rest[0]):
        pad = rest.pop(0)
        settings |= {"pad": (pad.min_height, pad.min_width), "border": BORDERS[pad.border_mode]}
    if rest and type(rest[0]) is A.RandomCrop and rest[0].p == 1 and not rest[0].pad_if_needed:
        crop = rest.pop(0)
        settings["crop"] = (crop.height, crop.width)
    if rest and type(rest[0]) is A.HorizontalFlip:
        settings["flip"] = rest.pop(0).p
    return None if rest or not list(transforms) else PadCropFlip(**settings)


def is_plain_pad(t) -> bool:
    "A centred, certain padding to a given size with a reflected, repeated or black border."
    return (type(t) is A.PadIfNeeded and t.p == 1 and t.position == "center" and t.border_mode in BORDERS
            and t.min_height is not None and t.min_width is not None
            and (t.border_mode != 0 or not np.any(t.fill)))
