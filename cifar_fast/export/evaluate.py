"""A model measured on labelled images: a named dataset's test set, or all images of a folder or a label table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from cifar_fast.data.arrays import Arrays
from cifar_fast.data.cache import cache_folder
from cifar_fast.data.errors import DataError
from cifar_fast.data.fill import decoded, hashed
from cifar_fast.data.hub import PREFIX
from cifar_fast.data.labelled import scan_labelled
from cifar_fast.data.layout import class_name, count, names
from cifar_fast.data.registry import Request, named_datasets
from cifar_fast.data.sources import Source, data_path, image_settings, load_source, same_data
from cifar_fast.export.base import BasePredictor
from cifar_fast.export.card import Card
from cifar_fast.utils.text import printable

BATCH = 250  # images decoded and predicted at a time


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    "A model's predictions for N labelled images; classes are those of the model."

    labels: np.ndarray  # (N,) int64
    probabilities: np.ndarray  # (N, C) float32
    mirrored: np.ndarray  # likewise, means over image and mirror image
    name: str  # of the dataset
    fingerprint: str | None = None  # of a dataset that was decoded as a whole
    files: tuple[str, ...] | None = None  # (N,)
    splits: np.ndarray | None = None  # (N,) split of each image, where there are several
    unknown: Mapping[str, int] = field(default_factory=dict)  # images of each class that was left out
    missing: tuple[str, ...] = ()  # classes without images
    trained: np.ndarray | None = None  # (N,) bool, images that the run was trained on; None where nobody knows
    notes: tuple[str, ...] = ()


def evaluate(
    model: BasePredictor,
    data: str | None = None,  # None for what its run was measured on
    columns: Mapping[str, str] | None = None,
    trained: np.ndarray | None = None,  # what `read_trained` says of its run
) -> Evaluated:
    "Measure `model` on `data`. Raises DataError, ExportError."
    recipe = model.card.recipe if model.card else {}
    settings = {**image_settings(recipe), "size": model.size, "resize_mode": model.resize_mode}
    if is_named(data):
        return of_source(model, named_source(model, data, columns), trained)
    root = data_path(data)
    own = is_own(model, data)
    listed = scan_labelled(root, model.vocab, columns or (settings["columns"] if own else None),
                           recipe.get("seed", 42) if own else None)
    request = Request(model.size, model.resize_mode, cache_folder() / "data", model.ranges)
    errors, read, digests = [], [], []
    files = [file for part in listed.splits.values() for file in part]
    rows = hashed(decoded(files, errors, read, request), digests)
    plain, mirrored = predict_with_tta(model, (image for image, _ in rows))
    if not read:
        raise DataError(f"none of the {count(len(files), 'image')} of {data} can be read: {errors[0][1]}")
    kept, splits = set(map(id, read)), [split for split, part in listed.splits.items() for _ in part]
    shown = [name for part in listed.shown.values() for name in part]
    at = [i for i, file in enumerate(files) if id(file) in kept]
    unread = [f"left out: {count(len(errors), 'unreadable image')} ({names([text for _, text in errors])})"] \
        if errors else []
    if own and "train" in listed.splits and trained is None:
        unread.append("these are the images of the run itself: those of train were trained on, so only the others say "
                      "how good it is")
    return Evaluated(labels=np.array([file.label for file in read]), probabilities=plain, mirrored=mirrored,
                     name=root.stem if root.is_file() else root.name, files=tuple(shown[i] for i in at),
                     splits=np.array([splits[i] for i in at]) if len(listed.splits) > 1 else None,
                     unknown=listed.unknown, missing=tuple(listed.missing), notes=(*listed.notes, *unread),
                     trained=None if trained is None else np.isin(np.array(digests, np.uint64), trained))


def is_named(data: str | None) -> bool:
    "Whether this is decoded as a whole: a dataset by name, or (None) what the run was trained on."
    return data is None or data in named_datasets() or data.startswith(PREFIX)


def is_own(model: BasePredictor, data: str | None) -> bool:
    "Whether `data` is the folder or label table that the run was trained on."
    trained = model.card.recipe.get("data") if model.card else None
    return bool(trained and data) and not is_named(data) and not is_named(trained) and same_data(trained, data)


def named_source(model: BasePredictor, data: str | None, columns: Mapping[str, str] | None = None) -> Source:
    trained = model.card.recipe if model.card else {}
    settings = {**image_settings(trained), "size": model.size, "resize_mode": model.resize_mode}
    own = data is None or data == trained.get("data")
    try:
        return load_source(data or trained["data"], seed=trained.get("seed", 42),
                           **(settings if own else {**settings, "columns": columns}))
    except DataError as e:
        if data or is_named(trained["data"]) or os.path.isabs(os.path.expanduser(trained["data"])):
            raise
        raise DataError(f"{e}. The run was trained on data={printable(trained['data'])}, as seen from the folder it "
                        f"was started in; name the images as seen from here: data=FOLDER") from None


def known_images(model: BasePredictor, source: Source) -> tuple[Arrays, np.ndarray, np.ndarray]:
    "(the test set, or the validation split where there is none; the model's class of each image, -1: none; rows ≥ 0)."
    part = source.test or source.valid
    if part is None:
        raise DataError(f"{source.name} has no test set to evaluate on; name other images: data=FOLDER or data=TABLE")
    place = {class_name(name): i for i, name in enumerate(model.vocab)}
    index = np.array([place.get(class_name(name), -1) for name in source.vocab])[part.labels]
    rows = np.flatnonzero(index >= 0)
    if not len(rows):
        raise DataError(f"{source.name} has no class that the model knows: it has {names(list(source.vocab), 20)}, the "
                        f"model knows {names(model.vocab, 20)}")
    return part, index, rows


def of_source(model: BasePredictor, source: Source, trained: np.ndarray | None = None) -> Evaluated:
    "On the test set of a decoded dataset, or where it has none on its validation split. Raises DataError."
    part, index, rows = known_images(model, source)
    images = part.images if len(rows) == len(part) else (part.images[i] for i in rows)
    plain, mirrored = predict_with_tta(model, images)
    lost = np.bincount(part.labels[index < 0], minlength=len(source.vocab))
    found = set(index.tolist())
    notes = [] if source.test else ["measured on the validation split: there is no test set"]
    if changed(model, source):
        notes.append(f"{changed_text(model, source)}: these are not the images that it was measured on then. Restore "
                     f"them, or name labelled images: data=FOLDER")
    elif model.card and other_copy(model.card, source):
        notes.append(other_copy_text(source))
    if lost.any():
        notes.append(f"not measured: {lost.sum():,} images of classes that the model does not know")
    return Evaluated(labels=index[rows], probabilities=plain, mirrored=mirrored, name=source.name,
                     fingerprint=source.fingerprint, files=part.files(rows), notes=tuple(notes),
                     unknown={name: int(n) for name, n in zip(source.vocab, lost, strict=True) if n},
                     missing=tuple(name for i, name in enumerate(model.vocab) if i not in found),
                     trained=None if trained is None or part.digests is None else np.isin(part.digests[rows], trained))


def other_copy(card: Card, source: Source) -> bool:
    """Whether `source` is the named dataset that the run was trained on, in a copy of which some pixels differ.

    For example CIFAR-10 as its archive holds it, and as a folder of JPEG files.
    """
    return (card.recipe.get("data") in named_datasets() and source.name == card.data.name
            and source.vocab == tuple(card.vocab) and len(source.test or ()) == card.data.test
            and source.fingerprint != card.data.fingerprint)


def other_copy_text(source: Source) -> str:
    return f"{source.name} is another copy here than the run was trained on: some pixels may differ"


def changed(model: BasePredictor, source: Source) -> bool:
    "Whether `source` is what the run was trained on by its name or place, and holds other images than then."
    card = model.card
    return bool(card and not other_copy(card, source) and card.data.fingerprint and source.name == card.data.name
                and (source.size, source.resize_mode) == (card.size, card.resize_mode)
                and source.fingerprint != card.data.fingerprint)


def changed_text(model: BasePredictor, source: Source) -> str:
    data = model.card.recipe.get("data", "")
    here = "" if is_named(data) or os.path.isabs(os.path.expanduser(data)) else \
        f", or data={printable(data)} is another folder seen from here"
    return (f"the images of {source.name} have changed since the run was trained{here}, or another version of Pillow "
            f"decodes them otherwise")


def predict_with_tta(model: BasePredictor, images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    "Probabilities (N, C) of uint8 images, without and with TTA; images are read as needed. Raises ExportError."
    parts = [model.probabilities(np.stack(batch), tta=True) for batch in batched(images)]
    if not parts:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
    plain, mirrored = (np.concatenate(values) for values in zip(*parts, strict=True))
    return model.finite(plain), mirrored


def batched(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    images = iter(images)
    while batch := list(islice(images, BATCH)):
        yield batch
