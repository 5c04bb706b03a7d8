"""Each kind of dataset, decoded into a folder of .npy files.

All return {"vocab", "splits"}, and "skipped", "others", "notes" and "ranges" (see `Source`) where there may be any.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast.data.arrays import write_names, write_split
from cifar_fast.data.depth import Range, common, notes
from cifar_fast.data.download import CLASSES, MD5, URL, official_archive, read_archive
from cifar_fast.data.errors import DataError, ImageError
from cifar_fast.data.images import deep_range, read_image
from cifar_fast.data.registry import Request, register_source
from cifar_fast.data.tree import File, Tree, seeded_split
from cifar_fast.utils.log import progress
from cifar_fast.utils.text import encodable

CHUNK = 256  # images decoded at a time
DEEP = (".apng", ".png", ".tif", ".tiff")  # names of images that may hold more than eight bits
DIGITS_SEED = 0  # of their split, which is the same for everybody
# Errors of the system, not of the image: it must not be cached as unreadable.
TRANSIENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


def fill_from_tree(tree: Tree, folder: Path, request: Request) -> dict:
    skipped, deep = [], deep_ranges(file.path for files in tree.splits.values() for file in files)
    request = replace(request, ranges=common(deep))
    for split, files in tree.splits.items():
        errors: list[tuple[int, str]] = []
        read: list[File] = []
        rows = progress(decoded(files, errors, read, request), len(files), f"decoding {split}", "images")
        labels = set(write_split(folder, split, rows, request.size).tolist())
        write_names(folder, split, [encodable(f"{tree.vocab[file.label]}/{file.name}") for file in read])
        if lost := next(((label, error) for label, error in errors if label not in labels), None):
            raise DataError(f"no image of class {tree.vocab[lost[0]]!r} in {split} can be read ({lost[1]}); "
                            "replace its images or remove the class")
        skipped += [error for _, error in errors]
    return {"vocab": tree.vocab, "splits": list(tree.splits), "skipped": skipped, "others": tree.others,
            "notes": notes(deep), "ranges": request.ranges}


def deep_ranges(paths: Iterable[str]) -> list[tuple[str, Range]]:
    "What `deep_range` finds in each image of a format whose files do not say how many of their bits they use."
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        deep = [path for path in paths if str(path).lower().endswith(DEEP)]
        return [found for found in pool.map(deep_range, deep) if found]


def decoded(
    files: list[File], errors: list[tuple[int, str]], read: list[File], request: Request
) -> Iterator[tuple[np.ndarray, int]]:
    "Images and labels, in order, their files added to `read`; of an unreadable one label and error go to `errors`."
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
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


@register_source("digits", "scikit-learn's load_digits", size=32, classes=10)
def fill_from_digits(folder: Path, request: Request) -> dict:
    "1,797 scans of 8×8 pixels in 17 greys, enlarged; 20 % of each digit are the test set."
    from sklearn.datasets import load_digits

    digits = load_digits()
    greys = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    sides = (request.size, request.size)
    large = [Image.fromarray(g).resize(sides, Image.Resampling.BICUBIC).convert("RGB") for g in greys]
    images, labels = np.stack([np.asarray(image) for image in large]), digits.target
    test = seeded_split(labels, DIGITS_SEED)
    for split, part in (("train", ~test), ("test", test)):
        write_split(folder, split, zip(images[part], labels[part].tolist(), strict=True), request.size)
    return {"vocab": [str(digit) for digit in digits.target_names], "splits": ["train", "test"]}


@register_source("cifar10", f"{URL} (md5 {MD5})", size=32, classes=10, version=MD5[:16])
def fill_from_archive(folder: Path, request: Request) -> dict:
    splits = read_archive(official_archive(request.shelf))
    for split, (images, labels) in splits.items():
        write_split(folder, split, zip(map(request.fit, images), labels.tolist(), strict=True), request.size)
    return {"vocab": CLASSES, "splits": list(splits)}
