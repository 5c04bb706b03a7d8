"""Images of a test set that are, or nearly are, in the training set too (Barz & Denzler, "Do we train on test data?",
2020, found 3.3 % in CIFAR-10).

For each image two searches name the most alike image of train, one by its detail, one by a trained model's features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from cifar_fast.export.duplicates.detail import COARSE, mirrored, signatures, similarity, unit
from cifar_fast.utils.log import progress

ALIKE = 0.85
"Correlation of detail from which a pair is the same photograph, another of its series or a catalogue's other colour."

AGREED = 0.6
"""The same where both searches name one image. Both were chosen by looking at pairs of CIFAR-10: below ALIKE horses
before a white wall and ships at the horizon begin; of what both searches name nearly all is true down to AGREED."""

WORTH = 0.5  # correlation without shifts, or
BLOCK = 1000  # test images compared at a time: 200 MB with 50,000 of train


@dataclass(frozen=True)
class Pair:
    test: int  # place in the test set
    train: int  # likewise
    kind: str  # "equal": the same pixels, mirrored or not; "near"
    found_by: str  # "both", "detail", "features"
    detail: float  # correlation, 1 for the same
    features: float | None  # cosine, likewise; None without a model
    pixels: float  # mean difference in grey levels, 0 for the same


@dataclass(frozen=True)
class Found:
    pairs: list[Pair]  # one for each test image that has any, the most alike first
    missed: list[Pair]  # the most alike of the others: what the thresholds leave out


def find(
    train,  # (M, S, S, 3) uint8
    test,  # (N, S, S, 3) uint8
    features: tuple[np.ndarray, np.ndarray] | None = None,  # of train and of test, (M, D) and (N, D), see `features`
) -> Found:
    by_detail, coarse = nearest_detail(train, test)
    by_features, cosine = nearest_features(*features) if features else (by_detail, None)
    best: dict[int, Pair] = {}
    equal = places_of(train)
    for i in progress(range(len(test)), len(test), "comparing pairs", "images"):
        both = features is not None and by_detail[i] == by_features[i]
        candidates = {}  # place in train → what found it
        if features is not None:
            candidates[by_features[i]] = "both" if both else "features"
        if coarse[i] >= WORTH:
            candidates.setdefault(by_detail[i], "detail")
        if (place := equal.get(digest(test[i]), equal.get(digest(np.asarray(test[i])[:, ::-1])))) is not None:
            candidates.setdefault(place, "detail")  # also of one colour, where there is no detail to search by
        for place, name in candidates.items():
            pair = compare(train, test, i, int(place), name, cosine)
            if i not in best or (is_copy(pair), pair.detail) > (is_copy(best[i]), best[i].detail):
                best[i] = pair
    ranked = sorted(best.values(), key=lambda pair: -pair.detail)
    return Found([pair for pair in ranked if is_copy(pair)], [pair for pair in ranked if not is_copy(pair)])


def places_of(images) -> dict[bytes, int]:
    "The first place of each image, by its pixels."
    places = {}
    for place, image in enumerate(images):  # one at a time: encoded ones are decoded as they are read
        places.setdefault(digest(image), place)
    return places


def digest(image) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def is_copy(pair: Pair) -> bool:
    return pair.kind == "equal" or pair.detail >= (AGREED if pair.found_by == "both" else ALIKE)


def compare(train, test, i: int, place: int, found_by: str, cosine) -> Pair:
    one, other = np.asarray(test[i]), np.asarray(train[place])
    pixels = min(float(np.abs(one.astype(np.int16) - image).mean()) for image in (other, other[:, ::-1]))
    return Pair(i, place, "near" if pixels else "equal", found_by, similarity(one, other),
                cosine(i, place) if cosine else None, pixels)


def nearest_detail(train, test) -> tuple[np.ndarray, np.ndarray]:
    keys = signatures(progress(train, len(train), "detail of train", "images"))
    queries = signatures(progress(test, len(test), "detail of test", "images"))
    return nearest(keys, (queries, mirrored(queries, COARSE)))


def nearest_features(train: np.ndarray, test: np.ndarray):
    "(the most alike of train for each of test (N,), the cosine of any two by their places)"
    from cifar_fast.export.duplicates.features import SIDE

    mean, deviation = train.mean(0), np.maximum(train.std(0), 1e-6)
    keys = unit((train - mean) / deviation)
    queries = [unit((values - mean) / deviation) for values in (test, mirrored(test, SIDE))]
    place, _ = nearest(keys, queries)
    return place, lambda i, j: max(float(query[i] @ keys[j]) for query in queries)


def nearest(keys: np.ndarray, queries) -> tuple[np.ndarray, np.ndarray]:
    "(place, product), (N,) each, of the key (M, D) of greatest product with that row of any of `queries`, (N, D)."
    place, best = np.zeros(len(queries[0]), int), np.full(len(queries[0]), -np.inf, np.float32)
    for query in queries:
        for first in range(0, len(query), BLOCK):
            products = query[first:first + BLOCK] @ keys.T
            found = products.argmax(1)
            value, rows = products[np.arange(len(found)), found], slice(first, first + len(found))
            place[rows] = np.where(value > best[rows], found, place[rows])
            best[rows] = np.maximum(best[rows], value)
    return place, best
