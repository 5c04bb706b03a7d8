"""What an exported file must meet, on images that the model was not trained on, before it is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from cifar_fast.data.block import split_rows
from cifar_fast.data.sources import Source
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Exported
from cifar_fast.export.predictor import Predictor
from cifar_fast.export.targets import Predict, Target

BATCHES = (1, 125)  # whose speeds are measured
FEW = 1_000  # images below which chance is allowed for
NOISE = 500  # images where the run's own are not at hand
TIE = 1e-5  # of two classes whose probabilities are this close, either may be predicted


@dataclass(frozen=True)
class Bound:
    "How far a file may be from the model in torch."

    difference: float  # of a probability
    differ: float  # fraction of the predicted classes
    loss: float  # of accuracy


EXACT, INT8 = Bound(1e-4, 0.0, 0.0), Bound(1.0, 0.02, 0.005)


def bound_of(path: Path) -> Bound:
    return INT8 if {".int8", ".micro"} & set(path.suffixes) else EXACT


@dataclass(frozen=True)
class Measured:
    "Images with the predictions of the model in torch."

    images: np.ndarray  # (N, size, size, 3) uint8
    labels: np.ndarray | None  # None for noise
    what: str  # "test", "held-out" or "noise"
    expected: np.ndarray  # (N, C)

    def __len__(self) -> int:
        return len(self.images)


def measured(model: Predictor, source: Source | None, most: int) -> Measured:
    "Up to `most` images of those that the run was measured on, noise where there is no `source`. Raises ExportError."
    if source is None:
        images, labels, what = noise(model.size, min(most, NOISE)), None, "noise"
    else:
        images, labels, what = own_images(model.card, source, most)
    trained = replace(model, folded=None)  # what was folded is compared with what was not
    return Measured(images, labels, what, trained.predict(images))


def noise(size: int, n: int) -> np.ndarray:
    "Images of squares of any colour: noise of single pixels would look the same to every model."
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
    index = np.arange(size) * 8 // size
    return np.ascontiguousarray(coarse[:, index][:, :, index])


def own_images(card: Card, source: Source, most: int) -> tuple[np.ndarray, np.ndarray, str]:
    "Of the test set, or of the part that was held out where the run was measured on that; of train where all was used."
    if card.split != "held-out" and source.test:
        part, rows, what = source.test, np.arange(len(source.test)), "test"
    else:
        recipe = card.recipe
        _, held = split_rows(source, recipe.get("valid", 0), "held_out", recipe.get("seed", 42))
        held = held if len(held) else source.rows("train")
        (part, rows), what = source.locate(held), "held-out" if card.split else "train"
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return np.asarray(part.images[rows]), part.labels[rows], what


def training_images(card: Card, source: Source, most: int) -> np.ndarray:
    "Up to `most` of those that the run was trained on, (N, size, size, 3) uint8, at random."
    recipe = card.recipe
    train, _ = split_rows(source, recipe.get("valid", 0), recipe.get("validate_on", "held_out"), recipe.get("seed", 42))
    rows = np.sort(np.random.default_rng(0).permutation(train)[:most])
    images = np.asarray(source.train.images[rows])
    return images[np.random.default_rng(1).permutation(len(images))]


def check(target: Target, path: Path, model: Predictor, on: Measured, speed: bool = True) -> Exported:
    "What is measured of a file. Raises ExportError where it is too far from the model in torch."
    predict = target.open(path, model.card) if target.open else None
    row = Exported(target=target.name, bytes=path.stat().st_size, note=target.note(path, predict is not None),
                   **target.memory(path))
    if predict is None:
        return row
    found = predict_in_batches(predict, on.images)
    require_alike(path, found, on)
    score = {} if on.labels is None else {"accuracy": accuracy(found, on.labels),
                                          "accuracy_torch": accuracy(on.expected, on.labels)}
    return replace(row, n=len(on), images=on.what, **score, differ=int(differing(found, on.expected).sum()),
                   difference=float(np.abs(found - on.expected).max()),
                   speed=ratios(predict, model, on.images) if speed else {}, threads=torch.get_num_threads())


def some_of(on: Measured, most: int) -> Measured:
    "Of `on` at most `most` images, at random: those of a folder come class by class."
    if len(on) <= most:
        return on
    rows = np.sort(np.random.default_rng(0).permutation(len(on))[:most])
    return Measured(on.images[rows], None if on.labels is None else on.labels[rows], on.what, on.expected[rows])


def predict_in_batches(predict: Predict, images: np.ndarray) -> np.ndarray:
    "Probabilities (N, C), in batches of 1, 7, then 125: a file must take any batch size."
    n = len(images)
    edges = sorted(edge for edge in {0, 1, 8, *range(133, n, 125), n} if edge <= n)
    return np.concatenate([predict(images[a:b]) for a, b in pairwise(edges)])


def require_alike(path: Path, found: np.ndarray, on: Measured) -> None:
    if found.shape != on.expected.shape:
        raise ExportError(f"{path.name} gives {found.shape} values instead of {on.expected.shape}; it was not kept")
    if not np.isfinite(found).all():
        raise ExportError(f"{path.name} gives non-finite values (NaN or inf); it was not kept")
    bound, difference, n = bound_of(path), np.abs(found - on.expected).max(), len(on)
    differ = int(differing(found, on.expected).sum())
    lost = 0 if on.labels is None else right(on.expected, on.labels) - right(found, on.labels)
    if difference > bound.difference or differ > allowed(n, bound.differ) or (
            bound is not EXACT and lost > allowed(n, bound.loss)):
        raise ExportError(f"{path.name} predicts another class than torch for {differ:,} of {n:,} images ({on.what}; "
                          f"at most {allowed(n, bound.differ):,} may differ), {lost:,} fewer are right (at most "
                          f"{allowed(n, bound.loss):,}), largest difference of a probability {difference:.2g} (at most "
                          f"{bound.difference:g}); it was not kept")


def allowed(n: int, fraction: float) -> int:
    """How many of `n` images may differ, where `fraction` of all images may.

    Of few images, the 99th percentile of the binomial distribution, which allows for chance.
    """
    if not fraction or n >= FEW:
        return int(fraction * n)
    from scipy.stats import binom

    return int(binom.ppf(0.99, n, fraction))


def differing(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    "(N,) whether the predicted classes differ, ties aside."
    best = np.sort(expected, 1)[:, -2:]
    tie = best[:, -1] - best[:, 0] < TIE if expected.shape[1] > 1 else np.zeros(len(expected), bool)
    return (found.argmax(1) != expected.argmax(1)) & ~tie


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return right(probabilities, labels) / len(labels)


def right(probabilities: np.ndarray, labels: np.ndarray) -> int:
    return int((probabilities.argmax(1) == labels).sum())


def ratios(predict: Predict, model: Predictor, images: np.ndarray) -> dict[str, float]:
    "Batch size → images/s as a multiple of those of torch, measured in turns."
    found = {}
    for batch in BATCHES:
        x = np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))
        times, end = [], time.perf_counter() + 1.0
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 50):
            times.append((seconds(lambda: model.predict(x)), seconds(lambda: predict(x))))  # noqa: B023 - called at once
        # The least time of each: the others are longer by what else was running.
        found[str(batch)] = min(torch_s for torch_s, _ in times) / min(s for _, s in times)
    return found


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
