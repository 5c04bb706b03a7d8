"""Splits as .npy files: streamed to disk, opened memory-mapped; their channel statistics and fingerprint."""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK = 2**24  # bytes of images read at a time, so that memory does not grow with the data


@dataclass(frozen=True, eq=False, repr=False)
class Arrays:
    "The images of one split."

    images: np.ndarray  # (N, size, size, 3) uint8, a read-only memory map
    labels: np.ndarray  # (N,) int64, indices into the vocab, read-only
    names: Path | None = None  # JSON list of N file names, for `files`; None where the images were no files

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Arrays({len(self):,} images)"

    def files(self, items: np.ndarray | None = None) -> tuple[str, ...] | None:
        "The files of all images, or of those at `items`, as class/name; None where the images were no files."
        if self.names is None:
            return None
        names = json.loads(self.names.read_text("utf-8"))  # read when asked for: a million of them take memory
        return tuple(names if items is None else (names[i] for i in items))


def write_split(
    folder: Path,
    split: str,  # "train", "test" or "valid"
    rows: Iterable[tuple[np.ndarray, int]],  # an image (size, size, 3) uint8 and its label
    size: int,  # side of the images, pixels
) -> np.ndarray:  # the labels, (N,) int64
    "Write `<split>_images.npy` and `<split>_labels.npy` without holding the images in memory."
    labels = []
    with open(folder / f"{split}_images.npy", "wb") as file:
        file.write(npy_header(0, size))
        for image, label in rows:
            file.write(image.tobytes())
            labels.append(label)
        file.seek(0)
        file.write(npy_header(len(labels), size))
        flush(file)
    with open(folder / f"{split}_labels.npy", "wb") as file:
        np.save(file, labels := np.array(labels, dtype=np.int64))
        flush(file)
    return labels


def open_split(folder: Path, split: str, size: int) -> Arrays:
    "Open what `write_split` wrote, memory-mapped. Raises OSError, EOFError or ValueError where it is damaged."
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
    if images.dtype != np.uint8 or images.shape != (*labels.shape, size, size, 3) or labels.dtype != np.int64:
        raise ValueError(f"{split} holds {images.dtype}{images.shape} and {labels.dtype}{labels.shape}")
    labels.flags.writeable = False
    names = folder / f"{split}_files.json"
    return Arrays(images, labels, names if names.exists() else None)


def write_names(folder: Path, split: str, names: list[str]) -> None:
    "Write the file names of a split, in the order of its images."
    with open(folder / f"{split}_files.json", "w", encoding="utf-8") as file:
        json.dump(names, file, ensure_ascii=False)
        flush(file)


def channel_stats(
    images: np.ndarray,  # (N, H, W, 3) uint8
) -> tuple[tuple[float, ...], tuple[float, ...]]:  # mean and std of red, green, blue, in 0..1
    "Exact, from a histogram. A std is at least 1/255, so that a constant channel is not divided by 0."
    counts = np.zeros((3, 256), dtype=np.int64)
    for block in blocks(images):
        pixels = block.reshape(-1, 3)
        counts += np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(3)])
    n = int(counts[0].sum())
    sums, squares = ((counts * np.arange(256) ** power).sum(axis=1).tolist() for power in (1, 2))
    variances = [n * q - s * s for s, q in zip(sums, squares, strict=True)]  # times (255 n)²: whole numbers
    return tuple(s / (255 * n) for s in sums), tuple(max(math.sqrt(v) / n, 1) / 255 for v in variances)


def fingerprint(vocab: tuple[str, ...], splits: dict[str, Arrays]) -> str:
    "sha256 of class names, pixels and labels in order: equal for equal data, wherever it is."
    digest = hashlib.sha256(json.dumps(vocab).encode())
    for split, arrays in splits.items():
        digest.update(f"{split} {arrays.images.shape}".encode())
        for block in blocks(arrays.images):
            digest.update(np.ascontiguousarray(block))
        digest.update(arrays.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    "Consecutive images, at most BLOCK bytes at a time."
    rows = max(1, BLOCK // max(1, images[:1].nbytes))
    return (images[start : start + rows] for start in range(0, len(images), rows))


def npy_header(count: int, size: int) -> bytes:
    "The .npy header for `count` images; numpy pads it so that its length does not depend on the count."
    shape = (count, size, size, 3)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())
