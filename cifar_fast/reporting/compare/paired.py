"""Two models on the same images: where only one is right, and whether the difference is significant.

The images are the sample here and the two models are fixed: the interval says nothing about other seeds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np

from cifar_fast.data.registry import named_datasets
from cifar_fast.reporting.compare.runs import CompareError, Run
from cifar_fast.utils.statistics import wilson

LEVEL = 0.95
CLASSES = 3  # with the greatest differences, which are named


@dataclass(frozen=True)
class Pair:
    "Numbers of images and accuracies as fractions; `difference` is the first run's accuracy minus the second's."

    names: tuple[str, str]
    on: str  # "test" or "held-out"
    n: int
    accuracy: tuple[float, float]
    both: int  # right
    first_only: int
    second_only: int
    neither: int
    difference: float
    interval: tuple[float, float]  # 95 %, Newcombe 1998
    p: float  # McNemar's exact test
    classes: tuple[tuple[str, float, float], ...]  # (class, accuracies of both), the greatest difference first

    @property
    def real(self) -> bool:
        "Whether interval and test both say that the difference is more than chance in the choice of images."
        low, high = self.interval
        return (low > 0 or high < 0) and self.p < 1 - LEVEL

    def as_dict(self) -> dict:
        return {**asdict(self), "level": LEVEL, "beyond_noise": self.real,
                "methods": {"interval": "Newcombe 1998, method 10", "p": "McNemar, exact, two-sided"}}


def pair(first: Run, second: Run) -> Pair:
    "Raises PredictionsError where a run has no predictions, CompareError where they are of different images."
    a, b = first.predictions(), second.predictions()
    same = a.images == b.images or same_files(first, second) or same_test_set(first, second)
    if not same or a.vocab != b.vocab or not np.array_equal(a.labels, b.labels):
        raise CompareError(f"{first.name} and {second.name} were measured on different images ({described(first)}; "
                           f"{described(second)}), so they cannot be paired; train both with the same data=, valid= "
                           f"and seed=, or compare their means: python -m cifar_fast results")
    one, two = a.correct, b.correct
    counts = tuple(int(np.sum(x)) for x in (one & two, one & ~two, ~one & two, ~one & ~two))
    n = len(one)
    return Pair((first.name, second.name), a.on, n, (float(one.mean()), float(two.mean())), *counts,
                difference=(counts[1] - counts[2]) / n, interval=newcombe(*counts), p=mcnemar(*counts[1:3]),
                classes=greatest_differences(a.labels, one, two, a.vocab))


def same_files(first: Run, second: Run) -> bool:
    "Whether both were measured on the same files, seen in other sizes or cropped otherwise: pixels differ then."
    a, b, files = first.card, second.card, first.predictions().files
    return files is not None and files == second.predictions().files and (
        (a.size, a.resize_mode) != (b.size, b.resize_mode) and a.recipe.get("data") == b.recipe.get("data"))


def same_test_set(first: Run, second: Run) -> bool:
    "Whether both were measured on the test set of the same named dataset, of which they may have had different copies."
    a, b = first.predictions(), second.predictions()
    data = first.card.recipe.get("data")
    return (data in named_datasets() and data == second.card.recipe.get("data") and a.on == b.on == "test"
            and (a.files is None or b.files is None or a.files == b.files))


def described(run: Run) -> str:
    predictions = run.predictions()
    fingerprint, _, part = predictions.images.partition("/")
    name = run.card.data.name or "a dataset"
    return f"{len(predictions.labels):,} {part} images of {name}, checksum {fingerprint[:8]}"


# ---------------------------------------------------------------- statistics


def newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """95 % interval of a difference between paired proportions.

    R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17 (1998) 2635–2650, method 10: Wilson's limits of either proportion, squared and added with
    their correlation phi, which is corrected for continuity.
    """
    n = both + first + second + neither
    one, two = both + first, both + second
    p1, p2 = one / n, two / n
    (l1, u1), (l2, u2) = wilson(p1, n), wilson(p2, n)
    association = both * neither - first * second
    if association > 0:
        association = max(association - n / 2, 0)
    margins = one * (n - one) * two * (n - two)
    phi = association / sqrt(margins) if margins else 0.0

    def side(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return p1 - p2 - side(p1 - l1, u2 - p2), p1 - p2 + side(u1 - p1, p2 - l2)


def mcnemar(first: int, second: int) -> float:
    "Two-sided exact p of McNemar's test (1947): a fair coin for each image that only one model gets right."
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def greatest_differences(labels, one, two, vocab) -> tuple[tuple[str, float, float], ...]:
    "The classes whose accuracies differ most; none that do not differ."
    accuracies = [(name, float(one[labels == i].mean()), float(two[labels == i].mean()))
                  for i, name in enumerate(vocab) if (labels == i).any()]
    accuracies.sort(key=lambda c: -abs(c[1] - c[2]))
    return tuple(c for c in accuracies[:CLASSES] if c[1] != c[2])
