"""Image files, decoded into a folder of .npy files.

This and the functions of named datasets return {"vocab", "splits"}, and "skipped", "others", "notes", "problems"
and "ranges" (see `Source`) where there may be any.
"""

import errno
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cifar_fast.data.arrays import pixel_digest, write_digests, write_names, write_split
from cifar_fast.data.depth import Range, common, notes
from cifar_fast.data.errors import DataError, ImageError
from cifar_fast.data.images import deep_range, read_image
from cifar_fast.data.layout import count, names
from cifar_fast.data.registry import Request
from cifar_fast.data.tree import File, Tree
from cifar_fast.utils.cores import DECODERS
from cifar_fast.utils.log import progress
from cifar_fast.utils.text import encodable

CHUNK = 256  # images decoded at a time
DEEP = (".apng", ".png", ".tif", ".tiff")  # names of images that may hold more than eight bits
DEEP_BYTES = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how they begin: PNG, TIFF, BigTIFF
# Errors of the system, not of the image: it must not be cached as unreadable.
TRANSIENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


def fill_from_tree(tree: Tree, folder: Path, request: Request, compare: bool = True) -> dict:
    "With `compare` images of equal pixels in two splits, or with two labels, are counted and named."
    skipped, seen, deep = [], {}, deep_ranges(file for files in tree.splits.values() for file in files)
    request = replace(request, ranges=common(deep))
    for split, files in tree.splits.items():
        errors: list[tuple[int, str]] = []
        read: list[File] = []
        rows = progress(decoded(files, errors, read, request), len(files), f"decoding {split}", "images")
        digests: list[int] = []
        written = write_split(folder, split, hashed(rows, digests), request.size)
        labels = set(written.tolist())
        shown = [encodable(tree.shown(file)) for file in read]
        # An image inside an archive has no path that stays.
        paths = [os.path.abspath(file.path) if isinstance(file, File) else "" for file in read]
        write_names(folder, split, shown, paths)
        seen[split] = write_digests(folder, split, digests), written, shown
        if lost := next(((label, error) for label, error in errors if label not in labels), None):
            raise DataError(f"no image of class {tree.vocab[lost[0]]!r} in {split} can be read ({lost[1]}); "
                            "replace its images or remove the class")
        skipped += [error for _, error in errors]
    equal = equal_images(seen) if compare else []
    return {"vocab": tree.vocab, "splits": list(tree.splits), "skipped": skipped, "others": tree.others,
            "problems": equal if tree.table else [], "notes": notes(deep) + ([] if tree.table else equal),
            "ranges": request.ranges}


def deep_ranges(files: Iterable[File]) -> list[tuple[str, Range]]:
    "What `deep_range` finds in each image of a format whose files do not say how many of their bits they use."
    with ThreadPoolExecutor(DECODERS) as pool:
        maybe = [file for file in files if not isinstance(file, File) or str(file.path).lower().endswith(DEEP)]
        return [found for found in pool.map(range_if_deep, maybe) if found]


def range_if_deep(file: File) -> tuple[str, Range] | None:
    "`deep_range`, of an image that is no file by its first bytes: its name need not end as its format does."
    try:
        path = file.path
    except ImageError:  # it is reported where the image itself is read
        return None
    if isinstance(path, io.BytesIO) and not bytes(path.getbuffer()[:8]).startswith(DEEP_BYTES):
        return None
    return deep_range(path)


def hashed(rows: Iterator[tuple[np.ndarray, int]], digests: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    "The same rows; the `pixel_digest` of each image is added to `digests`."
    for image, label in rows:
        digests.append(pixel_digest(image))
        yield image, label


def equal_images(seen: dict[str, tuple[np.ndarray, np.ndarray, list[str]]]) -> list[str]:
    "Sentences on equal images in two splits, and in train under two labels. `seen`: split → digests, labels, names."
    trained, labels, shown = seen["train"]
    texts = []
    for split, (digests, _, others) in seen.items():
        if split != "train" and len(same := np.flatnonzero(np.isin(digests, trained))):
            texts.append(f"{count(len(same), 'image')} of {split} {'is' if len(same) == 1 else 'are'} also trained on: "
                         f"equal pixels ({names([others[i] for i in same])})")
    _, group = np.unique(trained, return_inverse=True)
    least, most = np.full(len(trained), np.iinfo(np.int64).max), np.full(len(trained), -1)
    np.minimum.at(least, group, labels)
    np.maximum.at(most, group, labels)
    if len(torn := np.flatnonzero(least[group] != most[group])):
        texts.append(f"{len(torn):,} images to train on are equal to one of another class "
                     f"({names([shown[i] for i in torn])})")
    return texts


def decoded(
    files: list[File], errors: list[tuple[int, str]], read: list[File], request: Request
) -> Iterator[tuple[np.ndarray, int]]:
    "Images and labels, in order, their files added to `read`; of an unreadable one label and error go to `errors`."
    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            for file, image in zip(chunk, pool.map(partial(try_image, request), chunk), strict=True):
                if isinstance(image, ImageError):
                    errors.append((file.label, str(image)))
                else:
                    read.append(file)
                    yield image, file.label


def try_image(request: Request, file: File) -> np.ndarray | ImageError:
    try:
        return read_image(file.path, request.size, request.resize_mode, request.ranges)
    except ImageError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in TRANSIENT:
            raise DataError(f"{error}; the system could not read it: run the same command again") from error
        return error
