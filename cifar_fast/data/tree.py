"""An image tree on disk → class and split of each image. Reads names, sizes and times, no pixels."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from cifar_fast.data.errors import DataError
from cifar_fast.data.images import EXTENSIONS
from cifar_fast.utils.text import printable

TEST_FRACTION = 0.2  # of each class, where a folder has no test images of its own
NUMBER = re.compile(r"(\d{1,18})_")
TEST_NAMES = ("test", "valid", "val")  # the first of these next to train/ is the test split


class File(NamedTuple):
    name: str  # relative to the class folder
    path: str
    label: int
    state: str  # size (bytes), modified and changed (ns)


@dataclass(frozen=True)
class Tree:
    vocab: tuple[str, ...]
    splits: dict[str, list[File]]  # "train", and "test" where there is one
    state: str  # changes with any name, size or time
    others: int  # files that are not named like an image, not read
    seeded: bool  # the test split was sampled by the seed


def scan_tree(root: Path, seed: int = 0) -> Tree:
    """List `root`: `train/<class>/…` with `test/`, `valid/` or `val/` beside it, or class folders alone.

    Of class folders alone, 20 % of each class, at least one image where there are two, are sampled by `seed`
    as the test set. Within a class folder images may be at any depth; hidden files (.name) and files that are
    not named like images are not read. Where every name of a split begins with its own number and an
    underscore, as CIFAR-10's do, images come in the order of these numbers, otherwise by class and name.
    Raises DataError.
    """
    if not os.path.isdir(root / "train"):
        vocab = class_names(root)
        files, others = scan_split(root, vocab)
        labels = np.array([f.label for f in files])
        test = seeded_split(labels, seed)
        if not test.any():
            raise DataError(f"{printable(root)} has one image of each class, which leaves none to test on; add "
                            "images, or move the class folders into a folder train/ to train without a test set")
        splits = {
            "train": [f for f, t in zip(files, test, strict=True) if not t],
            "test": [f for f, t in zip(files, test, strict=True) if t],
        }
        return Tree(vocab, splits, tree_state(vocab, splits), others, seeded=True)
    vocab = class_names(root / "train")
    files, others = scan_split(root / "train", vocab)
    splits = {"train": files}
    test_name = next((name for name in TEST_NAMES if os.path.isdir(root / name)), None)
    if test_name:
        splits["test"], more = scan_split(root / test_name, vocab)
        others += more
    return Tree(vocab, splits, tree_state(vocab, splits), others, seeded=False)


def seeded_split(
    labels: np.ndarray,  # (N,) int
    seed: int,
) -> np.ndarray:  # (N,) bool, True for the test set
    "Sample TEST_FRACTION of each class, at least one of two or more; equal for equal labels and seed."
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(max(1, round(TEST_FRACTION * len(places))), len(places) - 1)
        test[np.random.default_rng([seed, label]).permutation(places)[:count]] = True
    return test


def class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(printable(name) for name in class_folders(folder))
    wanted = "two or more class folders are needed, <class>/<images>, alone or in train/ and test/"
    if not names:
        raise DataError(f"{printable(folder)} has no class folders; {wanted}")
    if len(names) == 1:
        raise DataError(f"{printable(folder)} has one class only, {names[0]!r}; {wanted}")
    if alike := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"{printable(folder)} has two class folders that are both shown as {alike[0]!r}; rename one")
    return names


def class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in list_folder(folder) if entry.name[0] != "." and is_folder(entry))


def scan_split(folder: Path, vocab: tuple[str, ...]) -> tuple[list[File], int]:
    "The images, with labels as indices into `vocab`, and the number of other files."
    files, others = [], 0
    for name in class_folders(folder):
        shown = printable(name)
        if shown not in vocab:
            raise DataError(
                f"{printable(folder)} has the class {shown!r}, which train/ lacks; "
                f"rename or remove it (classes of train/: {', '.join(vocab)})"
            )
        images, other = scan_class(folder / name, vocab.index(shown))
        if not images:
            but = f" but for {other} other files" if other else ""
            raise DataError(
                f"class {shown!r} has no images: {printable(folder / name)} is empty{but}; "
                "add images to it or remove the folder"
            )
        files += images
        others += other
    if not files:
        raise DataError(f"{printable(folder)} has no class folders; fill it like train/, or remove it")
    return in_order(files), others


def scan_class(folder: Path, label: int) -> tuple[list[File], int]:
    "All images below `folder`, by name. Each real folder is entered once, so a loop of links ends."
    files, others, entered, waiting = [], 0, set(), [("", folder)]
    while waiting:
        prefix, current = waiting.pop()
        if (place := folder_id(current)) in entered:
            continue
        entered.add(place)
        for entry in list_folder(current):
            name = entry.name
            if name.startswith("."):
                continue
            if is_folder(entry):
                waiting.append((f"{prefix}{name}/", entry.path))
            elif name[name.rfind(".") :].lower() in EXTENSIONS and (state := file_state(entry)):
                files.append(File(prefix + name, entry.path, label, state))
            else:
                others += 1
    return sorted(files), others


def in_order(files: list[File]) -> list[File]:
    matches = [NUMBER.match(file.name) for file in files]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) < len(files):
        return files
    return [file for _, file in sorted(zip(numbers, files, strict=True))]


def tree_state(vocab: tuple[str, ...], splits: dict[str, list[File]]) -> str:
    "Times of change count beside those of modification, which unpacking an archive may set."
    lines = [*vocab]
    for split, files in splits.items():
        lines.append(split)
        lines += [f"{file.label} {file.name} {file.state}" for file in files]
    return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def list_folder(folder) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        text = f"{printable(folder)} cannot be listed: {error.strerror}; check its permissions"
        raise DataError(text) from error


def folder_id(folder) -> tuple[int, int] | None:
    "The same under every name of a folder; None where it cannot be read."
    try:
        info = os.stat(folder)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def file_state(entry: os.DirEntry) -> str:
    "Empty for a pipe or device; a dangling link counts, so that it is named among the unreadable images."
    try:
        info = entry.stat()
    except OSError:
        return "unknown"
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}" if S_ISREG(info.st_mode) else ""
