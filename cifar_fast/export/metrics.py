"""Accuracy, accuracy by class and the confusion matrix, from probabilities and labels."""

from __future__ import annotations

import numpy as np

from cifar_fast.utils.tables import aligned
from cifar_fast.utils.text import printable, short_names

MATRIX = 12  # classes of which a terminal shows the whole confusion matrix


def scores(probs: np.ndarray, labels: np.ndarray, vocab) -> dict:
    """Accuracy, accuracy by class and the confusion matrix (rows are true classes) as JSON-able data.

    probs (N, C), labels (N,). Accuracies are fractions; a class without images has None.
    """
    return scores_of_predicted(probs.argmax(1), labels, vocab)


def scores_of_predicted(predicted: np.ndarray, labels: np.ndarray, vocab) -> dict:
    "The same from predicted classes (N,)."
    confusion = np.zeros((len(vocab), len(vocab)), int)
    np.add.at(confusion, (labels, predicted), 1)
    totals = confusion.sum(1)
    return {
        "n": int(len(labels)),
        "accuracy": float((predicted == labels).mean()),
        "per_class": {str(v): float(confusion[i, i] / totals[i]) if totals[i] else None for i, v in enumerate(vocab)},
        "confusion": confusion.tolist(),
    }


def scores_text(s: dict, vocab) -> str:
    "A table of accuracy by class beside the confusion matrix, or of many classes beside the most frequent error."
    accuracies = ["–" if s["per_class"][str(v)] is None else f"{s['per_class'][str(v)]:.2%}" for v in vocab]
    full = list(map(printable, vocab))
    names, confusion = short_names(full, 32), np.array(s["confusion"])
    if len(vocab) <= MATRIX:
        head, explained, left = short_names(full, 8), "; rows true, columns predicted", 1
        cells = [list(map(str, row)) for row in s["confusion"]]
    else:
        head, explained, left = ["images", "most often predicted instead"], "", {0, 3}
        cells = [[f"{sum(row):,}", most_frequent_error(row, i, names)] for i, row in enumerate(confusion)]
    rows = [["class", "accuracy", *head],
            *([name, accuracy, *row] for name, accuracy, row in zip(names, accuracies, cells, strict=True)),
            ["all", f"{s['accuracy']:.2%}", *[""] * len(head)]]
    *lines, total = aligned(rows, left)
    return "\n".join([*lines, f"{total}  of {s['n']:,} images{explained}"])


def most_frequent_error(row: np.ndarray, true: int, names: list[str]) -> str:
    "`owl (3)`: the wrong class that images of class `true` were most often predicted as, and how many."
    wrong = np.where(np.arange(len(row)) == true, 0, row)
    return f"{names[wrong.argmax()]} ({wrong.max():,})" if wrong.any() else ""
