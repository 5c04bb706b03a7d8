"""Which images of a dataset are most doubtful: those whose label the model finds least probable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cifar_fast.serve.classify import Classifier

if TYPE_CHECKING:
    from cifar_fast.data.sources import Source

CHUNK = 250  # images predicted at a time; then others have a turn at the model
TOP = 3  # most probable classes that are kept of each image


@dataclass(frozen=True)
class Ranking:
    "Of N images, by their row numbers in the source. All classes of all images would take too much memory."

    order: np.ndarray  # (N,) rows, the most doubtful first
    labels: np.ndarray  # (N,) int64
    doubt: np.ndarray  # (N,) float32, one minus the probability of the label
    classes: np.ndarray  # (N, TOP) int64, the most probable first
    probabilities: np.ndarray  # (N, TOP) float32, theirs


def rank(
    classifier: Classifier,
    source: Source,
    progress: Callable[[int, int], None],  # is told the images done, and of how many
) -> Ranking:
    """Predict all images, training images too: the model has not learnt many of the wrong labels among them by heart.

    Raises ExportError.
    """
    total, done = sum(map(len, source.splits.values())), 0
    doubts, classes, probabilities = [], [], []
    for arrays in source.splits.values():
        for start in range(0, len(arrays), CHUNK):
            progress(done, total)
            labels = arrays.labels[start:start + CHUNK]
            with classifier.lock:
                probs = classifier.predictor.predict(arrays.images[start:start + CHUNK])
            top = np.argsort(-probs, 1, kind="stable")[:, :TOP]
            doubts.append(1 - probs[np.arange(len(labels)), labels])
            classes.append(top)
            probabilities.append(np.take_along_axis(probs, top, 1))
            done += len(labels)
    doubt = np.concatenate(doubts)
    return Ranking(np.argsort(-doubt, kind="stable"), np.concatenate([a.labels for a in source.splits.values()]), doubt,
                   np.concatenate(classes), np.concatenate(probabilities))
