"""`data=hf:owner/name`: an image dataset of the Hugging Face Hub, read by the package `datasets`."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cifar_fast.data.errors import DataError, ImageError
from cifar_fast.data.fill import fill_from_tree
from cifar_fast.data.layout import class_name
from cifar_fast.data.registry import Dataset, Request, needed
from cifar_fast.data.tree import Tree, seeded_split
from cifar_fast.utils.errors import FULL
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.text import printable

PREFIX = "hf:"
PLACE = re.compile(r"(?P<path>[\w.-]+(/[\w.-]+)?)(:(?P<name>[\w.+-]+))?(@(?P<revision>[\w./-]+))?")
SPLITS = {"train": ("train",), "valid": ("validation", "valid", "val", "dev"), "test": ("test",)}
LABELS = ("label", "labels", "class", "category", "target")  # columns of labels, where none has names of classes
UNLABELLED = (None, "")
SEED = 0  # of the test set of a dataset that has one split only


@dataclass(frozen=True, slots=True)
class HubImage:
    "One image, read when it is asked for, so that memory does not grow with the dataset. Stands in for a tree.File."

    rows: object  # a datasets.Dataset
    row: int
    column: str
    label: int
    name: str

    @property
    def path(self):
        value = self.rows[self.row][self.column]
        if value is None:
            raise ImageError(f"{self.name}: the dataset has no image in this row")
        if value["bytes"] is None:
            return value["path"]
        file = io.BytesIO(value["bytes"])
        file.name = self.name
        return file


def hub_dataset(
    data: str,  # hf:owner/name, and where there are several :config, @revision
    columns: Mapping[str, str] | None = None,  # {"file": column of the images, "label": column of the labels}
) -> Dataset:
    place = PLACE.fullmatch(data.removeprefix(PREFIX))
    if place is None:
        raise DataError(f"data={printable(data)} names no dataset of the Hub; write data=hf:owner/name, "
                        "data=hf:owner/name:config or data=hf:owner/name@revision")
    name = place["path"].rpartition("/")[2]
    columns = dict(columns or {})
    if "split" in columns:
        raise DataError(f"data.split={columns['split']} has no effect: a dataset of the Hub names its splits itself; "
                        "leave it out")
    chosen = hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()[:16]
    return Dataset(name, f"Hugging Face Hub, {data.removeprefix(PREFIX)}", size=64, classes=0, version=chosen,
                   fill=partial(fill_from_hub, data, place.groupdict(), columns))


def fill_from_hub(data: str, place: dict, columns: dict[str, str], folder: Path, request: Request) -> dict:
    loaded = load(data, place)
    splits, notes = known_splits(data, loaded)
    first = next(iter(splits.values()))
    image, label = find_columns(data, first.features, columns)
    values = {split: rows[label] for split, rows in splits.items()}
    if any(isinstance(value, list | dict) for split in values.values() for value in split):
        raise DataError(f"data={data}: its column {label} holds several values for an image, and an image has one "
                        f"class here; data.label=COLUMN names another (there are {', '.join(first.features)})")
    vocab = class_names(first.features[label], values)
    images = {}
    for split, rows in splits.items():
        found = hub_images(split, rows, values[split], image, label, vocab)
        if len(found) < len(rows):
            notes.append(f"{len(rows) - len(found):,} of {len(rows):,} images of {split} have no label: left out")
        if found:
            images[split] = found
    if "train" not in images:
        raise DataError(f"data={data} has no labelled images to train on; choose another dataset")
    if images.keys() == {"train"}:
        test = seeded_split(np.array([image.label for image in images["train"]]), SEED)
        images = {"train": [i for i, t in zip(images["train"], test, strict=True) if not t],
                  "test": [i for i, t in zip(images["train"], test, strict=True) if t]}
        notes.append("it has no test set: a fifth of each class is held back as one")
    tree = Tree(vocab=vocab, splits=images, state="", others=0, seeded=False)
    filled = fill_from_tree(tree, folder, request)
    return filled | {"notes": [*filled.get("notes", ()), *notes]}


def load(data: str, place: dict):
    "A datasets.DatasetDict. Raises DataError, or OSError where the disk is full."
    datasets = needed(data, "datasets", "cifar_fast[hf]")
    log_progress(f"loading {data.removeprefix(PREFIX)} from the Hugging Face Hub")
    try:
        return datasets.load_dataset(**place)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        if getattr(cause, "errno", None) in FULL:
            raise cause from error
        raise DataError(f"cannot load data={data}: {printable(' '.join(str(cause).split()))}; check the name and the "
                        "network (hf download --repo-type dataset NAME fetches it beforehand)") from error


def known_splits(data: str, loaded) -> tuple[dict, list[str]]:
    "train, valid and test, as far as there are any; and a sentence about those that are not used."
    taken = {split: next((name for name in names if name in loaded), None) for split, names in SPLITS.items()}
    if taken["train"] is None:
        if len(loaded) > 1:
            raise DataError(f"data={data} has the splits {', '.join(loaded)}, and none to train on; "
                            "choose another dataset or config")
        taken = {"train": next(iter(loaded))}
    others = [name for name in loaded if name not in taken.values()]
    notes = [f"splits that are not used: {', '.join(others)}"] if others else []
    return {split: loaded[name] for split, name in taken.items() if name}, notes


def find_columns(data: str, features: Mapping, columns: dict[str, str]) -> tuple[str, str]:
    from datasets import ClassLabel, Image

    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    named = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = named or [name for name in LABELS if name in features]
    found = []
    for key, candidates in (("file", images), ("label", labels)):
        choice = [columns[key]] if key in columns else candidates
        if len(choice) != 1 or choice[0] not in features:
            what = "images" if key == "file" else "labels"
            raise DataError(f"data={data}: which column holds the {what}? Its columns are {', '.join(features)}; "
                            f"add data.{key}=COLUMN")
        found += choice
    return found[0], found[1]


def class_names(feature, values: dict[str, list]) -> tuple[str, ...]:
    "As folders and tables have them. Raises DataError where two are one then."
    if names := getattr(feature, "names", None):
        cleaned = tuple(map(class_name, names))
        if twice := [name for i, name in enumerate(cleaned) if name in cleaned[:i]]:
            raise DataError(f"two of the dataset's classes are called {twice[0]!r}; choose another dataset")
        return cleaned
    found = {value for split in values.values() for value in split if value not in UNLABELLED}
    return tuple(dict.fromkeys(class_name(str(value)) for value in sorted(found)))


def hub_images(split: str, rows, values: list, image: str, label: str, vocab: tuple[str, ...]) -> list[HubImage]:
    "Those that have a label; -1 is how a ClassLabel says that there is none."
    from datasets import ClassLabel, Image

    encoded = rows.cast_column(image, Image(decode=False)).select_columns([image])
    if isinstance(rows.features[label], ClassLabel):
        indices = [-1 if value is None else value for value in values]
    else:
        number = {name: i for i, name in enumerate(vocab)}
        indices = [-1 if value in UNLABELLED else number[class_name(str(value))] for value in values]
    return [HubImage(encoded, row, image, index, f"{split}-{row}") for row, index in enumerate(indices) if index >= 0]
