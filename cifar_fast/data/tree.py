"""An image tree on disk → class and split of each image. Reads names, sizes and times, no pixels."""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from cifar_fast.data.errors import DataError
from cifar_fast.data.layout import (
    Layout,
    Part,
    alike,
    class_name,
    count,
    find_layout,
    look,
    names,
    passed_over,
    similar,
)
from cifar_fast.utils.text import printable

TEST_FRACTION = 0.2  # of each class, where a folder has no test images of its own
NUMBER = re.compile(r"(\d{1,18})_")


class File(NamedTuple):
    name: str  # relative to the class folder
    path: str
    label: int
    state: str  # size (bytes), modified and changed (ns)


@dataclass(frozen=True)
class Tree:
    vocab: tuple[str, ...]
    splits: dict[str, list[File]]  # "train", and "test" and "valid" where there are such
    state: str  # changes with any name, size or time
    others: int  # files that are not named like an image, not read
    seeded: bool  # the test split was sampled by the seed
    notes: tuple[str, ...] = ()  # what was guessed, passed over, is not used or is missing
    problems: tuple[str, ...] = ()  # what a table lists and was left out; on_error=refuse stops at these
    table: bool = False  # names are those in a label table, not relative to a class folder

    def shown(self, file: File) -> str:
        "How messages and reports name a file."
        return file.name if self.table else f"{self.vocab[file.label]}/{file.name}"


def scan_tree(root: Path, seed: int = 0) -> Tree:
    """List `root`: `train/<class>/…` with `test/` and `valid/` beside it (see `find_layout`), or class folders alone.

    Of class folders alone, 20 % of each class, at least one image where there are two, are sampled by `seed`
    as the test set. Within a class folder images may be at any depth; hidden and system files and files that are
    not named like images are not read. Where every name of a split begins with its own number and an
    underscore, as CIFAR-10's do, images come in the order of these numbers, otherwise by class and name.
    Raises DataError.
    """
    layout = find_layout(root)
    vocab = class_names(layout)
    scanned = {split: scan_split(part, vocab, layout.passed) for split, part in layout.parts.items()}
    splits, others = {split: files for split, (files, _) in scanned.items()}, sum(n for _, n in scanned.values())
    seeded = "all" in splits
    if seeded:
        splits = sampled(root, splits["all"], seed)
    more = [f"passed over: {count(others, 'file')} not named like an image"] if others else []
    notes = (*layout.notes, *alike(vocab), *missing_classes(vocab, splits), *passed_over(layout.passed), *more)
    return Tree(vocab, splits, tree_state(vocab, splits), others, seeded, notes)


def sampled(root: Path, files: list[File], seed: int) -> dict[str, list[File]]:
    "Train and test of class folders alone. Raises DataError where nothing is left to test on."
    test = seeded_split(np.array([f.label for f in files]), seed)
    if not test.any():
        raise DataError(f"{printable(root)} has one image of each class, which leaves none to test on; add "
                        "images, or move the class folders into a folder train/ to train without a test set")
    return {"train": [f for f, t in zip(files, test, strict=True) if not t],
            "test": [f for f, t in zip(files, test, strict=True) if t]}


def missing_classes(vocab: tuple[str, ...], splits: dict[str, list[File]]) -> list[str]:
    "A sentence for each split that lacks classes."
    lacking = {split: [vocab[i] for i in sorted(set(range(len(vocab))) - {f.label for f in files})]
               for split, files in splits.items()}
    return [f"the {split} split has no image of {names(classes)}, so its accuracy says nothing of "
            f"{'it' if len(classes) == 1 else 'them'}" for split, classes in lacking.items() if classes]


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


def class_names(layout: Layout) -> tuple[str, ...]:
    "Those of the split to train on. Raises DataError where another split has a class that it lacks."
    vocab = tuple(class_name(name) for name in layout.parts.get("all", layout.parts.get("train")).classes)
    for part in layout.parts.values():
        for name in map(class_name, part.classes):
            if name not in vocab:
                near = similar(name, vocab)
                hint = f"there is {near!r}: give both the same name" if near else "rename or remove it"
                raise DataError(f"{printable(part.folder)} has the class {name!r}, which the training split lacks; "
                                f"{hint} (classes to train on: {names(list(vocab), most=20)})")
    return vocab


def scan_split(part: Part, vocab: tuple[str, ...], passed: Counter) -> tuple[list[File], int]:
    "The images, with labels as indices into `vocab`, and the number of other files."
    files, others, label_of = [], 0, {name: i for i, name in enumerate(vocab)}
    for name in part.classes:
        images, other = scan_class(part.folder / name, label_of[class_name(name)], passed)
        if not images and leads_back(part.folder / name):
            raise DataError(f"class {class_name(name)!r} is a link to a folder that it lies in: remove "
                            f"{printable(part.folder / name)}")
        if not images:
            but = f" but for {other} other files" if other else ""
            raise DataError(
                f"class {class_name(name)!r} has no images: {printable(part.folder / name)} is empty{but}; "
                "add images to it or remove the folder"
            )
        files += images
        others += other
    return in_order(files), others


def scan_class(folder: Path, label: int, passed: Counter) -> tuple[list[File], int]:
    """All images below `folder`, by name. Each real folder is entered once, so a loop of links ends.

    A link back to a folder above is not followed: it would bring the images of other classes.
    """
    files, others, waiting = [], 0, [("", folder)]
    entered = ids_above(folder)
    while waiting:
        prefix, current = waiting.pop()
        if (place := folder_id(current)) in entered:
            continue
        entered.add(place)
        here = look(current, passed)
        waiting += [(f"{prefix}{name}/", current / name) for name in here.folders]
        others += here.others
        for entry in here.images:
            if state := file_state(entry):
                files.append(File(prefix + entry.name, entry.path, label, state))
            else:
                others += 1
    return sorted(files), others


def leads_back(folder: Path) -> bool:
    "Whether it is a link to a folder above it."
    return folder_id(folder) in {folder_id(above) for above in folder.absolute().parents}


def ids_above(folder: Path) -> set[tuple[int, int] | None]:
    "The `folder_id` of all folders that it lies in, also where it is a link to."
    return {folder_id(above) for above in (*folder.absolute().parents, *folder.resolve().parents)}


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


def folder_id(folder) -> tuple[int, int] | None:
    "The same under every name of a folder; None where it cannot be read."
    try:
        info = os.stat(folder)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def file_state(entry: os.DirEntry) -> str:
    "Empty for a pipe or device; a dangling link counts, so that it is named among the unreadable images."
    try:
        return state_of(entry.stat())
    except OSError:
        return "unknown"


def stat_state(path: str) -> str:
    "Empty where there is no such file."
    try:
        return state_of(os.stat(path))
    except (OSError, ValueError):
        return ""


def state_of(info: os.stat_result) -> str:
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}" if S_ISREG(info.st_mode) else ""
