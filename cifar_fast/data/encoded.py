"""Images beyond 128 pixels, kept as JPEGs in one file: about a fifth of the bytes, decoded whenever they are read."""

import copy
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST = 128  # pixels; images with a longer side are kept encoded
JPEG = {"quality": 95, "subsampling": 0}  # colours in full resolution: hardly a difference to the pixels


class EncodedImages:
    "Reads like an array (N, size, size, 3) uint8. A part of it, `images[rows]`, is decoded by `np.asarray` only."

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, bounds: np.ndarray, size: int):  # bounds (N, 2) int64: first byte, and past the last
        self.path, self.bounds, self.size = path, bounds, size
        self.content = np.memmap(path, np.uint8, "r") if len(bounds) else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.size, self.size, 3

    @property
    def nbytes(self) -> int:
        "Of the pixels."
        return len(self) * self.size**2 * 3

    def __getitem__(self, rows):
        if not isinstance(rows, int | np.integer):
            part = copy.copy(self)
            part.bounds = self.bounds[rows]
            return part
        first, end = self.bounds[rows]
        with Image.open(io.BytesIO(self.content[first:end]), formats=("JPEG",)) as image:
            return np.array(image)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        images = np.empty(self.shape, np.uint8)
        for row in range(len(self)):
            images[row] = self[row]
        return images if dtype is None else images.astype(dtype)

    def __reduce__(self):  # a worker process opens the file itself
        return EncodedImages, (self.path, self.bounds, self.size)


def write_encoded(folder: Path, split: str, images: Iterable[np.ndarray]) -> None:
    "Write `<split>_images.jpegs`, one JPEG after another, and `<split>_bounds.npy`."
    ends = [0]
    with open(folder / f"{split}_images.jpegs", "wb") as file:
        for image in images:
            content = io.BytesIO()
            Image.fromarray(image).save(content, "JPEG", **JPEG)
            file.write(content.getbuffer())
            ends.append(file.tell())
        flush(file)
    with open(folder / f"{split}_bounds.npy", "wb") as file:
        np.save(file, np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int64))
        flush(file)


def open_encoded(folder: Path, split: str, size: int) -> EncodedImages:
    "Open what `write_encoded` wrote. Raises OSError, EOFError or ValueError where it is damaged."
    path, bounds = folder / f"{split}_images.jpegs", np.load(folder / f"{split}_bounds.npy", allow_pickle=False)
    if bounds.dtype != np.int64 or bounds.ndim != 2 or len(bounds) and bounds[-1, 1] != path.stat().st_size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, which its bounds do not describe")
    return EncodedImages(path, bounds, size)


def flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())
