"""Splits as .npy files: streamed to disk, opened memory-mapped; their channel statistics and fingerprint."""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_fast.data.encoded import LARGEST, EncodedImages, flush, open_encoded, write_encoded

BLOCK = 2**24  # bytes of images read at a time, so that memory does not grow with the data


@dataclass(frozen=True, eq=False, repr=False)
class Arrays:
    "The images of one split."

    images: np.ndarray | EncodedImages  # (N, size, size, 3) uint8, a read-only memory map; encoded beyond 128 pixels
    labels: np.ndarray  # (N,) int64, indices into the vocab, read-only
    # JSON list of N [name, path], for `files`, as bytes in a memory map: it stays readable where the file is replaced
    # during training. None where the images were no files.
    names: np.ndarray | None = None
    digests: np.ndarray | None = None  # (N,) uint64, of each image's pixels; None where the images were no files

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Arrays({len(self):,} images)"

    def files(self, items: np.ndarray | None = None) -> tuple[str, ...] | None:
        "The files of all images, or of those at `items`, as class/name; None where the images were no files."
        return self._listed(0, items)

    def paths(self, items: np.ndarray | None = None) -> tuple[str, ...] | None:
        "The absolute paths of the same files; None also where the images are inside of archives."
        paths = self._listed(1, items)
        return paths if paths and all(paths) else None

    def _listed(self, column: int, items: np.ndarray | None) -> tuple[str, ...] | None:
        if self.names is None:
            return None
        rows = json.loads(self.names.tobytes())  # parsed when asked for: a million of them take memory
        return tuple(row[column] for row in (rows if items is None else (rows[i] for i in items)))


def write_split(
    folder: Path,
    split: str,  # "train", "test" or "valid"
    rows: Iterable[tuple[np.ndarray, int]],  # an image (size, size, 3) uint8 and its label
    size: int,  # side of the images, pixels
) -> np.ndarray:  # the labels, (N,) int64
    "Write `<split>_images.npy`, or encoded images, and `<split>_labels.npy` without holding the images in memory."
    labels = []

    def images():
        for image, label in rows:
            labels.append(label)
            yield image

    if size > LARGEST:
        write_encoded(folder, split, images())
    else:
        write_pixels(folder, split, images(), size)
    with open(folder / f"{split}_labels.npy", "wb") as file:
        np.save(file, labels := np.array(labels, dtype=np.int64))
        flush(file)
    return labels


def write_pixels(folder: Path, split: str, images: Iterable[np.ndarray], size: int) -> None:
    with open(folder / f"{split}_images.npy", "wb") as file:
        file.write(npy_header(0, size))
        count = 0
        for image in images:
            file.write(image.tobytes())
            count += 1
        file.seek(0)
        file.write(npy_header(count, size))
        flush(file)


def open_split(folder: Path, split: str, size: int) -> Arrays:
    "Open what `write_split` wrote, memory-mapped. Raises OSError, EOFError or ValueError where it is damaged."
    if size > LARGEST:
        images = open_encoded(folder, split, size)
    else:
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
    if images.dtype != np.uint8 or images.shape != (*labels.shape, size, size, 3) or labels.dtype != np.int64:
        raise ValueError(f"{split} holds {images.dtype}{images.shape} and {labels.dtype}{labels.shape}")
    labels.flags.writeable = False
    names, digests = folder / f"{split}_files.json", folder / f"{split}_digests.npy"
    return Arrays(images, labels, np.memmap(names, np.uint8, "r") if names.exists() else None,
                  np.load(digests, mmap_mode="r", allow_pickle=False) if digests.exists() else None)


def write_names(folder: Path, split: str, names: list[str], paths: list[str]) -> None:
    "Write the file names of a split as they are shown, and their paths, in the order of its images."
    with open(folder / f"{split}_files.json", "w", encoding="utf-8") as file:
        json.dump(list(zip(names, paths, strict=True)), file)  # in ASCII: a path may have bytes that are no UTF-8
        flush(file)


def write_digests(folder: Path, split: str, digests: list[int]) -> np.ndarray:
    "Write what `pixel_digest` gives for each image of a split; returns it, (N,) uint64."
    with open(folder / f"{split}_digests.npy", "wb") as file:
        np.save(file, found := np.array(digests, np.uint64))
        flush(file)
    return found


def pixel_digest(image: np.ndarray) -> int:
    "64 bits: equal for images (H, W, 3) uint8 of the same size that are equal in every pixel."
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "big")


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
    return (np.asarray(images[start : start + rows]) for start in range(0, len(images), rows))


def npy_header(count: int, size: int) -> bytes:
    "The .npy header for `count` images; numpy pads it so that its length does not depend on the count."
    shape = (count, size, size, 3)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()
