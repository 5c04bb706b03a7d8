"""A dataset by name or folder → uint8 arrays, labels, vocab and statistics."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cifar_fast.data.arrays import Arrays, channel_stats, fingerprint, open_split
from cifar_fast.data.cache import cache_folder, cached
from cifar_fast.data.download import CLASSES, MD5, URL, official_archive
from cifar_fast.data.errors import DataError
from cifar_fast.data.fill import fill_from_archive, fill_from_digits, fill_from_tree
from cifar_fast.data.tree import Tree, scan_tree
from cifar_fast.utils.text import printable

FORMAT = 3  # of the cache entries; a higher one rebuilds them all
META = "meta.json"


@dataclass(frozen=True)
class Source:
    "A dataset, decoded."

    name: str  # "cifar10", "digits" or the folder's name
    train: Arrays
    test: Arrays | None  # None where a folder has only a train/
    vocab: tuple[str, ...]  # class names; a label is an index into it
    mean: tuple[float, float, float]  # red, green, blue over the pixels of train, in 0..1
    std: tuple[float, float, float]  # likewise
    fingerprint: str  # sha256 of all pixels, labels and class names
    skipped: tuple[str, ...]  # images left out, each with the reason
    origin: str  # describes the folder or address it was read from
    others: int = 0  # files that are not named like an image, not read


class Plan(NamedTuple):
    "How to get a dataset that is not in the cache yet."

    name: str
    origin: str
    slot: str  # its place in the cache
    state: str  # changes with its contents
    fill: Callable[[Path], dict]  # writes the splits into a folder; returns vocab, splits, skipped, others


def load_source(
    data: str | os.PathLike = "cifar10",  # "cifar10", "digits" or a folder (one of these names: ./digits)
    *,
    seed: int = 0,  # samples the test set of a folder that has none of its own; of no other effect
    on_error: str = "skip",  # unreadable images: "skip" with a warning, or "refuse"
    cache: str | os.PathLike | None = None,  # default CIFAR_FAST_CACHE, else the platform's cache folder
) -> Source:
    """Open a dataset: decoded once, memory-mapped from the cache from then on.

    cifar10 is the image tree that CIFAR_FAST_DATA names (or its subfolder cifar10), else the official
    archive, downloaded once. digits are scikit-learn's, enlarged to 32×32 RGB, with a fixed split. `tree.scan_tree`
    says how a folder is laid out. Raises DataError, whose message names the next step.
    """
    if on_error not in ("skip", "refuse"):
        raise DataError(f"on_error={on_error!r} is unknown; use on_error=skip or on_error=refuse")
    if seed < 0:
        raise DataError(f"seed={seed}: a seed is 0 or more")
    shelf = cache_folder(cache) / "data"
    plan = plan_source(data, seed, shelf)
    source = cached(shelf, plan.slot, plan.state, partial(build_entry, plan), partial(load_entry, plan))
    if source.skipped:
        report_skipped(source, on_error)
    return source


def plan_source(data: str | os.PathLike, seed: int, shelf: Path) -> Plan:
    if data == "digits":
        return Plan("digits", "scikit-learn's load_digits", "digits", f"v{FORMAT}", fill_from_digits)
    if data == "cifar10":
        root = named_tree()
        if root is None:
            origin, state = f"{URL} (md5 {MD5})", f"v{FORMAT}-{MD5[:16]}"
            return Plan("cifar10", origin, "cifar10-official", state, partial(fill_official, shelf))
        tree = scan_tree(root)
        if tree.vocab != CLASSES:
            raise DataError(
                f"CIFAR_FAST_DATA names {printable(root)}, whose classes are not CIFAR-10's: "
                f"{', '.join(tree.vocab)}; use data={printable(root)} for a dataset of your own"
            )
        return plan_tree("cifar10", root, tree, seed)
    try:
        root = Path(os.path.realpath(os.path.expanduser(data)))
    except ValueError as error:  # a NUL, or characters that cannot be encoded
        raise DataError(f"data={printable(data)} is not a path: {error}; use cifar10, digits or a folder") from error
    if not data or not os.path.isdir(root):
        is_file = data and os.path.exists(root)
        what = "is a file, not a folder" if is_file else "is neither a known dataset nor a folder"
        raise DataError(f"data={printable(data)} {what}; use cifar10, digits or a folder of class folders")
    return plan_tree(printable(root.name) or "data", root, scan_tree(root, seed), seed)


def named_tree() -> Path | None:
    "The tree that CIFAR_FAST_DATA names. A variable that names nothing usable is a mistake, not a default."
    named = os.environ.get("CIFAR_FAST_DATA")
    if not named:
        return None
    root = Path(os.path.realpath(os.path.expanduser(named)))
    for tree in (root, root / "cifar10"):
        if os.path.isdir(tree / "train"):
            return tree
    raise DataError(
        f"CIFAR_FAST_DATA={printable(named)} holds no image tree: neither it nor its subfolder cifar10 has a "
        "folder train; correct the variable, or unset it to download CIFAR-10"
    )


def plan_tree(name: str, root: Path, tree: Tree, seed: int) -> Plan:
    place = hashlib.sha256(os.fsencode(root) + (f"\0{seed}" if tree.seeded else "").encode()).hexdigest()
    slot = re.sub(r"[^\w-]", "-", name, flags=re.ASCII)[:40]
    state = f"v{FORMAT}-{tree.state[:16]}"
    origin = f"image tree {printable(root)}"
    return Plan(name, origin, f"{slot}-{place[:12]}", state, partial(fill_from_tree, tree))


def fill_official(shelf: Path, folder: Path) -> dict:
    return fill_from_archive(official_archive(shelf), folder)


def build_entry(plan: Plan, folder: Path) -> None:
    "Fill a cache entry: the arrays, and in META what is computed from them."
    notes = {"skipped": [], "others": 0} | plan.fill(folder)
    splits = {split: open_split(folder, split) for split in notes["splits"]}
    mean, std = channel_stats(splits["train"].images)
    meta = notes | {
        "splits": {split: len(arrays) for split, arrays in splits.items()},
        "mean": mean,
        "std": std,
        "fingerprint": fingerprint(tuple(notes["vocab"]), splits),
    }
    with open(folder / META, "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def load_entry(plan: Plan, folder: Path) -> Source:
    "Open a cache entry. Raises OSError, ValueError, KeyError or TypeError where it is damaged."
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    splits = {split: open_split(folder, split) for split in meta["splits"]}
    for split, arrays in splits.items():
        labels, classes = arrays.labels, len(meta["vocab"])
        if len(labels) != meta["splits"][split] or not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"{split} does not fit {META}")
    return Source(
        name=plan.name,
        train=splits["train"],
        test=splits.get("test"),
        vocab=tuple(meta["vocab"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        fingerprint=meta["fingerprint"],
        skipped=tuple(meta["skipped"]),
        origin=plan.origin,
        others=meta["others"],
    )


def report_skipped(source: Source, on_error: str) -> None:
    first, count = "; ".join(source.skipped[:3]), len(source.skipped)
    more = f"; and {count - 3} more" if count > 3 else ""
    images = f"{count} unreadable image{'s' if count > 1 else ''} in {source.name}: {first}{more}"
    if on_error == "refuse":
        raise DataError(f"{images}; replace or remove them, or leave them out with on_error=skip")
    warnings.warn(f"left out {images}", stacklevel=3)
