"""The list of duplicates as a small table, and what a run scores with and without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cifar_fast.export.card_checks import Duplicates
from cifar_fast.export.duplicates.find import Pair
from cifar_fast.export.predictions import Predictions
from cifar_fast.utils.csv import csv_text, original_cell
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import write_text
from cifar_fast.utils.text import printable

COLUMNS = ["test", "train", "kind", "found_by", "detail", "features", "pixels", "test_file", "train_file",
           "test_label", "train_label"]


class ListingError(CifarFastError):
    "A list of duplicates that cannot be used; the message names it and the next step."


def listing(pairs: list[Pair], train, test, vocab) -> pd.DataFrame:
    "COLUMNS of the pairs, in the order of the test set; `train` and `test` are `Arrays`."
    pairs = sorted(pairs, key=lambda pair: pair.test)
    rows = pd.DataFrame([vars(pair) for pair in pairs], columns=COLUMNS[:7])
    for name, part in (("test", test), ("train", train)):
        places = rows[name].to_numpy(int)
        rows[f"{name}_file"] = part.files(places) or ""
        rows[f"{name}_label"] = [vocab[label] for label in part.labels[places]]
    return rows[COLUMNS].round({"detail": 3, "features": 3, "pixels": 2})


def save(rows: pd.DataFrame, path: Path) -> None:
    write_text(path, csv_text(rows))


def read(path: Path) -> pd.DataFrame:
    "Raises ListingError."
    try:
        rows = pd.read_csv(path, keep_default_na=False, dtype={"test_file": str, "test_label": str})
        if lacking := {"test", "test_file"} - set(rows):
            raise ValueError(f"no column {', '.join(sorted(lacking))}")
        if rows["test"].dtype.kind not in "iu" and len(rows):
            raise ValueError("a place in the test set is no whole number")
        for column in {"test_file", "test_label"} & set(rows):
            rows[column] = rows[column].map(original_cell)
    except FileNotFoundError:
        raise ListingError(f"no {path}; duplicates RUN makes such a list") from None
    except (ValueError, UnicodeError) as e:
        raise ListingError(f"{path} is no list of duplicates ({e}); duplicates RUN makes one") from None
    return rows


def with_and_without(predicted: Predictions, rows: pd.DataFrame) -> Duplicates:
    "Accuracy on the listed images and on all others. Raises ListingError where the list is of other images."
    places = rows["test"].to_numpy(int)
    n = len(predicted.labels)
    wrong = len(places) and (places.min() < 0 or places.max() >= n)
    if not wrong and predicted.files is not None:
        # Predictions are read with their names as they are shown.
        wrong = any(file and printable(predicted.files[i]) != printable(file)
                    for i, file in zip(places, rows["test_file"], strict=True))
    if not wrong and "test_label" in rows:
        wrong = any(printable(predicted.vocab[predicted.labels[i]]) != printable(label)
                    for i, label in zip(places, rows["test_label"], strict=True))
    if wrong:
        raise ListingError("the list is of other images than these predictions; duplicates RUN makes one for them")
    listed = np.zeros(n, bool)
    listed[places] = True
    right = predicted.correct
    return Duplicates(n=int(listed.sum()), images=n, accuracy=float(right[listed].mean()) if listed.any() else None,
                      accuracy_without=float(right[~listed].mean()) if not listed.all() else None)
