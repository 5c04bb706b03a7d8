"""A dataset by name or folder → uint8 arrays, labels, vocab and statistics."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_fast.data.arrays import Arrays, channel_stats, fingerprint, open_split
from cifar_fast.data.auto_size import choose_size
from cifar_fast.data.cache import cache_folder, cached
from cifar_fast.data.cifar10 import CLASSES
from cifar_fast.data.depth import Ranges
from cifar_fast.data.errors import DataError
from cifar_fast.data.fill import fill_from_tree
from cifar_fast.data.hub import PREFIX, hub_dataset
from cifar_fast.data.images import RESIZE_MODES
from cifar_fast.data.layout import TABLES
from cifar_fast.data.registry import Dataset, Request, named_datasets
from cifar_fast.data.table import scan_table
from cifar_fast.data.tree import Tree, scan_tree
from cifar_fast.utils.text import is_windows_path, nearest, printable

FORMAT = 11  # of the cache entries; a higher one rebuilds them all
META = "meta.json"


@dataclass(frozen=True)
class Source:
    "A dataset, decoded."

    name: str  # of the dataset, folder or table
    train: Arrays
    test: Arrays | None  # None where a folder has only a train/
    vocab: tuple[str, ...]  # class names; a label is an index into it
    mean: tuple[float, float, float]  # red, green, blue over the pixels of train, in 0..1
    std: tuple[float, float, float]  # likewise
    fingerprint: str  # sha256 of all pixels, labels and class names
    skipped: tuple[str, ...]  # images left out, each with the reason
    origin: str  # describes the folder or address it was read from
    others: int = 0  # files that are not named like an image, not read
    valid: Arrays | None = None  # where the data has a validation split of its own
    size: int = 32  # side of every image, pixels
    resize_mode: str = "crop"  # how images were brought to it
    own_size: int = 32  # the side that it has where none is asked for
    ranges: Ranges = field(default_factory=dict)  # of its images of more than eight bits, see `depth`
    notes: tuple[str, ...] = ()  # what was guessed, passed over or is missing, a sentence each
    problems: tuple[str, ...] = ()  # those of the notes that on_error=refuse stops at
    seeded: bool = False  # its test set was sampled from a folder or table by the seed

    @property
    def splits(self) -> dict[str, Arrays]:
        "Those that there are. Row numbers index their concatenation, in this order."
        named = {"train": self.train, "test": self.test, "valid": self.valid}
        return {name: arrays for name, arrays in named.items() if arrays}

    def rows(self, split: str) -> np.ndarray:
        "The row numbers of a split, (N,) int64; none where it is missing."
        first = 0
        for name, arrays in self.splits.items():
            if name == split:
                return np.arange(first, first + len(arrays))
            first += len(arrays)
        return np.arange(0)

    @property
    def labels(self) -> np.ndarray:
        "Of all rows, (N,) int64."
        return np.concatenate([arrays.labels for arrays in self.splits.values()])

    def locate(self, rows: np.ndarray) -> tuple[Arrays, np.ndarray]:
        "The split that holds all of these rows, and their places in it. Raises DataError where none does."
        for name, arrays in self.splits.items():
            own = self.rows(name)
            if len(rows) and own[0] <= rows.min() and rows.max() <= own[-1]:
                return arrays, rows - own[0]
        raise DataError(f"{self.name} has no split with the rows {rows.min():,} to {rows.max():,}")


class Plan(NamedTuple):
    "How to get a dataset that is not in the cache yet."

    name: str
    origin: str
    slot: str  # its place in the cache
    state: str  # changes with its contents
    fill: Callable[[Path, Request], dict]  # writes the splits into a folder; see fill.py
    size: int  # side of its images, where the user names none
    notes: tuple[str, ...] = ()  # see `Source`
    problems: tuple[str, ...] = ()
    seeded: bool = False


def load_source(
    data: str | os.PathLike = "cifar10",  # a name of `named_datasets`, a folder (./digits) or a label table
    *,
    size: int | None = None,  # side of every image, pixels; None: the dataset's own; for a folder see auto_size
    resize_mode: str = "crop",  # one of RESIZE_MODES
    columns: Mapping[str, str] | None = None,  # of a label table: {"file": …, "label": …, "split": …}
    seed: int = 0,  # samples the test set of a folder that has none of its own; of no other effect
    on_error: str = "skip",  # unreadable images and what is wrong with a table: "skip", and say so, or "refuse"
    cache: str | os.PathLike | None = None,  # default CIFAR_FAST_CACHE, else the platform's cache folder
) -> Source:
    """Open a dataset: decoded once, memory-mapped from the cache from then on.

    cifar10 is the image tree that CIFAR_FAST_DATA names (or its subfolder cifar10), else the official archive.
    Named datasets are downloaded once; those without a split of their own get a fixed one. `tree.scan_tree` says
    how a folder is laid out, `table.scan_table` what a table holds. Raises DataError, which names the next step.
    """
    if on_error not in ("skip", "refuse"):
        raise DataError(f"on_error={on_error!r} is unknown; use on_error=skip or on_error=refuse")
    if seed < 0:
        raise DataError(f"seed={seed}: a seed is 0 or more")
    if resize_mode not in RESIZE_MODES:
        raise DataError(f"resize_mode={resize_mode} is unknown; use {', '.join(RESIZE_MODES)}")
    shelf = cache_folder(cache) / "data"
    plan = plan_source(data, seed, columns)
    request = Request(size or plan.size, resize_mode, shelf)
    slot = plan.slot + ("" if (request.size, resize_mode) == (32, "crop") else f"-{request.size}-{resize_mode}")
    source = cached(shelf, slot, plan.state, partial(build_entry, plan, request), partial(load_entry, plan, request))
    if source.skipped:
        report_skipped(source, on_error)
    if source.problems and on_error == "refuse":
        wrong = "; ".join(text.removeprefix("left out: ") for text in source.problems)
        raise DataError(f"{source.name}: {wrong}; correct the table, or go on without them with on_error=skip")
    return source


def image_settings(described: Mapping) -> dict:
    "The arguments of `load_source`, of the described recipe of a finished run, that say which images and how."
    # It names a size wherever its images were not of 32 pixels; older ones could have no others.
    return {"size": described.get("size") or 32, "resize_mode": described.get("resize_mode", "crop"),
            "columns": described.get("columns")}


def plan_source(data: str | os.PathLike, seed: int, columns: Mapping[str, str] | None = None) -> Plan:
    if isinstance(data, str) and data.startswith(PREFIX):
        slot = re.sub(r"[^\w-]", "-", data, flags=re.ASCII)
        unique = hashlib.sha256(data.encode()).hexdigest()[:8]  # name:config and name-config are two datasets
        return plan_named(hub_dataset(data, columns), f"{slot}-{unique}")
    root = named_tree() if data == "cifar10" else None
    if columns and (data in named_datasets() or os.path.isdir(os.path.expanduser(data))):
        key = next(iter(columns))
        raise DataError(f"data.{key}={printable(columns[key])} names a column of a label table, and data="
                        f"{printable(data)} is none; leave it out")
    hidden = f"data={data} is the dataset of that name; your folder is data=./{data}" \
        if data in named_datasets() and os.path.isdir(data) and (root is None or not same_data(str(root), data)) else ""
    if root is None and data in named_datasets():
        return plan_named(named_datasets()[data], f"{data}-official")._replace(notes=(hidden,) if hidden else ())
    if root is not None:
        tree = scan_tree(root)
        if tree.vocab != CLASSES:
            raise DataError(
                f"CIFAR_FAST_DATA names {printable(root)}, whose classes are not CIFAR-10's: "
                f"{', '.join(tree.vocab)}; use data={printable(root)} for a dataset of your own"
            )
        tree = replace(tree, notes=(*tree.notes, hidden)) if hidden else tree
        return plan_tree("cifar10", root, tree, seed, compare=False)  # no test image of CIFAR-10 is in train
    root = data_path(data)
    if os.path.isdir(root):
        return plan_tree(printable(root.name) or "data", root, scan_tree(root, seed), seed)
    return plan_tree(printable(root.stem), root, scan_table(root, columns, seed), seed, columns)


def may_have_valid(data: str | os.PathLike) -> bool:
    "False for a named dataset without a validation split of its own, of which this is known before its download."
    named = None if data == "cifar10" and os.environ.get("CIFAR_FAST_DATA") else named_datasets().get(str(data))
    return named is None or named.valid


def hint_of_path(data: str, root: Path) -> str:
    "What may have been meant by a path that is not there."
    if not os.path.isdir(root.parent):
        hub = f"; a dataset of the Hugging Face Hub is data=hf:{data}" if re.fullmatch(r"[\w-]+/[\w.-]+", data) else ""
        return f", nor {printable(root.parent)}{hub}"
    try:
        return nearest(root.name, os.listdir(root.parent))
    except OSError:  # it may not be listed
        return ""


def data_path(data: str | os.PathLike) -> Path:
    "The folder or label table that the user names. Raises DataError."
    try:
        root = Path(os.path.realpath(os.path.expanduser(data)))
    except ValueError as error:  # a NUL, or characters that cannot be encoded
        raise DataError(f"data={printable(data)} is not a path: {error}; use a dataset's name or a folder") from error
    is_file = bool(data) and os.path.isfile(root)
    if not data or not (os.path.isdir(root) or is_file and root.suffix.lower() in TABLES):
        if is_windows_path(data):
            raise DataError(f"data={printable(data)} is a path of Windows, which means nothing here; write it as this "
                            "system has it (under WSL C:\\x is /mnt/c/x)")
        if os.sep in str(data) and not os.path.exists(root):
            raise DataError(f"data={printable(data)}: there is no such folder or file{hint_of_path(str(data), root)}")
        what = f"is a file, but no label table ({', '.join(TABLES)})" if is_file else \
            "is neither a known dataset nor a folder nor a label table"
        raise DataError(f"data={printable(data)} {what}{nearest(str(data), named_datasets())}; use a dataset's name "
                        "(python -m cifar_fast recipes lists them), hf:owner/name, a folder of class folders or a "
                        "table with the columns file and label")
    return root


def same_data(one: str, other: str) -> bool:
    "Whether these values of data= name the same dataset, folder or table; an empty one names nothing."
    one, other = (name and os.path.realpath(os.path.expanduser(name)) for name in (one, other))
    return one == other


def plan_named(known: Dataset, slot: str) -> Plan:
    return Plan(known.name, known.origin, slot, f"v{FORMAT}-{known.version}", known.fill, known.size)


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


def plan_tree(name: str, root: Path, tree: Tree, seed: int, columns: Mapping[str, str] | None = None,
              compare: bool = True) -> Plan:  # compare: look for images of test in train
    chosen = f"\0{sorted(columns.items())}" if columns else ""
    place = hashlib.sha256(os.fsencode(root) + (f"\0{seed}" if tree.seeded else "").encode() + chosen.encode())
    slot = re.sub(r"[^\w-]", "-", name, flags=re.ASCII)[:40]
    state = f"v{FORMAT}-{tree.state[:16]}"
    origin = f"{'label table' if tree.table else 'image tree'} {printable(root)}"
    fill = partial(fill_from_tree, tree, compare=compare)
    size = choose_size([file.path for files in tree.splits.values() for file in files])
    return Plan(name, origin, f"{slot}-{place.hexdigest()[:12]}", state, fill, size, tree.notes, tree.problems,
                tree.seeded)


def build_entry(plan: Plan, request: Request, folder: Path) -> None:
    "Fill a cache entry: the arrays, and in META what is computed from them."
    about = {"skipped": [], "others": 0, "notes": [], "problems": [], "ranges": {}} | plan.fill(folder, request)
    splits = {split: open_split(folder, split, request.size) for split in about["splits"]}
    mean, std = channel_stats(splits["train"].images)
    meta = about | {
        "splits": {split: len(arrays) for split, arrays in splits.items()},
        "mean": mean,
        "std": std,
        "fingerprint": fingerprint(tuple(about["vocab"]), splits),
    }
    with open(folder / META, "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def load_entry(plan: Plan, request: Request, folder: Path) -> Source:
    "Open a cache entry. Raises OSError, ValueError, KeyError or TypeError where it is damaged."
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    splits = {split: open_split(folder, split, request.size) for split in meta["splits"]}
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
        valid=splits.get("valid"),
        size=request.size,
        own_size=plan.size,
        resize_mode=request.resize_mode,
        ranges={kind: (low, high) for kind, (low, high) in meta["ranges"].items()},
        notes=(*plan.notes, *plan.problems, *meta["notes"], *meta["problems"]),
        problems=(*plan.problems, *meta["problems"]),
        seeded=plan.seeded,
    )


def report_skipped(source: Source, on_error: str) -> None:
    first, count = "; ".join(source.skipped[:3]), len(source.skipped)
    more = f"; and {count - 3} more" if count > 3 else ""
    images = f"{count} unreadable image{'s' if count > 1 else ''} in {source.name}: {first}{more}"
    if on_error == "refuse":
        raise DataError(f"{images}; replace or remove them, or leave them out with on_error=skip")
    warnings.warn(f"left out {images}", stacklevel=3)
