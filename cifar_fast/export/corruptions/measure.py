"""Accuracy of a model on corrupted images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from cifar_fast.data.cache import cache_folder
from cifar_fast.data.errors import DataError
from cifar_fast.data.fill import decoded
from cifar_fast.data.labelled import scan_labelled
from cifar_fast.data.layout import count, names
from cifar_fast.data.registry import Request
from cifar_fast.data.sources import data_path
from cifar_fast.export.base import BasePredictor
from cifar_fast.export.card_checks import Corruptions
from cifar_fast.export.corruptions import CORRUPTIONS, QUALITIES, SEVERITIES, corrupt
from cifar_fast.export.corruptions.digital import compressed
from cifar_fast.export.evaluate import (
    changed,
    changed_text,
    is_named,
    is_own,
    known_images,
    named_source,
    other_copy,
    other_copy_text,
)
from cifar_fast.utils.log import progress

BATCH = 250  # images corrupted and predicted at a time


def measure(
    model: BasePredictor,
    images: Sequence[np.ndarray],  # (S, S, 3) uint8 each, as the model sees them
    labels: np.ndarray,  # (N,) int64
    rows: np.ndarray,  # (N,) place of each in its data set, which decides its draws
    seed: int = 0,
) -> Corruptions:
    "Raises ExportError where the model gives non-finite values."
    kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    every = [None, *kinds, *QUALITIES]

    def changed(kind, image: np.ndarray, row: int) -> np.ndarray:
        if kind is None:
            return image
        return compressed(image, kind) if isinstance(kind, int) else corrupt(image, *kind, seed, row)

    right = dict.fromkeys(every, 0)
    starts = range(0, len(labels), BATCH)
    # Batch by batch, so that images that are decoded when they are read are read once.
    for first in progress(starts, len(starts), f"{len(kinds)} corruptions and {len(QUALITIES)} JPEG qualities",
                          f"batches of {BATCH} images"):
        here = slice(first, first + BATCH)
        batch = [np.asarray(image) for image in images[here]]
        for kind in every:
            inputs = np.stack([changed(kind, image, int(row)) for image, row in zip(batch, rows[here], strict=True)])
            right[kind] += int((model.predict(inputs).argmax(1) == labels[here]).sum())
    accuracy = {kind: count / len(labels) for kind, count in right.items()}
    return Corruptions(n=len(labels), seed=seed, clean=accuracy[None],
                       severities={name: [accuracy[name, severity] for severity in SEVERITIES] for name in CORRUPTIONS},
                       jpeg={str(quality): accuracy[quality] for quality in QUALITIES})


# ---------------------------------------------------------------- which images


def labelled_images(model: BasePredictor, data: str | None, columns: Mapping[str, str] | None = None,
                    most: int | None = None, seed: int = 0):
    """(images, labels (N,), rows (N,)) of what `evaluate` takes, or a stratified choice of `most` of them.

    Raises DataError.
    """
    if is_named(data) or is_own(model, data):
        source = named_source(model, None if is_own(model, data) else data, columns)
        if changed(model, source):  # some of its test set may have been trained on, and the figures are kept
            raise DataError(f"{changed_text(model, source)}; restore them, or name other images: data=FOLDER")
        if model.card and other_copy(model.card, source):
            warnings.warn(other_copy_text(source), stacklevel=2)
        part, index, rows = known_images(model, source)  # of the run's own data those that it was not trained on
        if lost := int((index < 0).sum()):
            warnings.warn(f"not measured: {lost:,} images of classes that the model does not know", stacklevel=2)
        rows = chosen(index, rows, most, seed)
        return part.images[rows], index[rows], rows
    listed = scan_labelled(data_path(data), model.vocab, columns)
    files = [file for part in listed.splits.values() for file in part]
    rows = chosen(np.array([file.label for file in files]), np.arange(len(files)), most, seed)
    request, errors, read = Request(model.size, model.resize_mode, cache_folder() / "data", model.ranges), [], []
    place = {id(files[row]): row for row in rows}
    images = [image for image, _ in decoded([files[row] for row in rows], errors, read, request)]
    if not images:
        raise DataError(f"none of the {len(rows):,} images of {data} can be read: {errors[0][1]}")
    for note in listed.notes:
        warnings.warn(note, stacklevel=2)
    if errors:
        warnings.warn(f"left out: {count(len(errors), 'unreadable image')} ({names([text for _, text in errors])})",
                      stacklevel=2)
    return images, np.array([file.label for file in read]), np.array([place[id(file)] for file in read])


def chosen(labels: np.ndarray, rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    "`most` of the rows in order, of each class (`labels[row]`) the same fraction; all where there are no more."
    if most is None or most >= len(rows):
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    ranked = order[np.argsort(labels[order], kind="stable")]  # by class, in random order within each
    return np.sort(ranked[(np.arange(most) * len(ranked)) // most])


__all__ = ["chosen", "labelled_images", "measure"]
