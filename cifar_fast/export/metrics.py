"""Accuracy plain and with TTA, per class, and the confusion matrix, from probabilities and labels."""

from __future__ import annotations

import numpy as np


def scores(probs: np.ndarray, labels: np.ndarray, vocab) -> dict:
    """Accuracy, accuracy per class and the confusion matrix (rows are true classes) as JSON-able data.

    probs (N, C), labels (N,). All accuracies are shares of 1; a class without images has None.
    """
    return counted(probs.argmax(1), labels, vocab)


def counted(pred: np.ndarray, labels: np.ndarray, vocab) -> dict:
    "The same from predicted classes (N,)."
    confusion = np.zeros((len(vocab), len(vocab)), int)
    np.add.at(confusion, (labels, pred), 1)
    totals = confusion.sum(1)
    return {
        "n": int(len(labels)),
        "accuracy": float((pred == labels).mean()),
        "per_class": {str(v): float(confusion[i, i] / totals[i]) if totals[i] else None for i, v in enumerate(vocab)},
        "confusion": confusion.tolist(),
    }


def scores_text(s: dict, vocab) -> str:
    "A table of accuracy per class, then the confusion matrix (rows true, columns predicted)."
    width = max(8, *(len(str(v)) for v in vocab)) + 1
    short = [str(v)[:6] for v in vocab]
    lines = [f"{'class':<{width}}{'accuracy':>9}   " + " ".join(f"{n:>6}" for n in short)]
    for v, row in zip(vocab, s["confusion"], strict=True):
        share = s["per_class"][str(v)]
        counts = " ".join(f"{n:>6}" for n in row)
        lines.append(f"{v!s:<{width}}{'—' if share is None else f'{share:.2%}':>9}   {counts}")
    lines.append(f"{'all':<{width}}{s['accuracy']:9.2%}   of {s['n']:,} images; rows true, columns predicted")
    return "\n".join(lines)
