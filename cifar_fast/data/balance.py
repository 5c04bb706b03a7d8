"""Unequal classes: a weight for each class, and a sample in which every class is equally frequent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

UNEQUAL = 1.5
"Classes are unequal where the largest has so many times the images of the smallest; a stratified split stays below."


def unequal(counts: Iterable[int]) -> bool:
    "Whether accuracy hides something here: `counts` are the images of each class; those without any do not count."
    counts = [n for n in counts if n]
    return len(counts) > 1 and max(counts) >= UNEQUAL * min(counts)


def balanced_accuracy(per_class: Mapping[str, float | None]) -> float | None:
    "The mean of the accuracies of all classes that have images (the others have None); None where none has."
    there = [accuracy for accuracy in per_class.values() if accuracy is not None]
    return sum(there) / len(there) if there else None


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights (classes,) float32 in inverse proportion to frequency; their mean over the images of `labels` is 1.

    labels (N,). With a mean of 1 the learning rate keeps its meaning. A class without images has weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.astype(np.float32)


def balanced_sample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """N places in `labels` (N,), in random order, every class equally often (a remainder goes to random classes).

    Within a class no image comes twice before each has come once, so equal classes give a permutation of all images.
    """
    classes, label_of = np.unique(labels, return_inverse=True)
    quotas = np.full(len(classes), len(labels) // len(classes))
    quotas[rng.permutation(len(classes))[:len(labels) % len(classes)]] += 1
    chosen = []
    for i, quota in enumerate(quotas):
        places = np.flatnonzero(label_of == i)
        rounds = -(-quota // len(places))
        chosen.append(np.concatenate([rng.permutation(places) for _ in range(rounds)])[:quota])
    return rng.permutation(np.concatenate(chosen))
