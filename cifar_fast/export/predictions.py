"""What a model predicted for each image of the set it was measured on, saved beside its run."""

from __future__ import annotations

import json
import shlex
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write
from cifar_fast.utils.text import printable

NAME = "predictions.npz"
MOST_BYTES = 1 << 30  # decompressed; 10,000 images of ten classes take 0.2 MB
HALF = 1e-3  # probabilities in a file are float16: a sum of one may be off by this much


class PredictionsError(CifarFastError):
    "A file of predictions that cannot be used; the message names it and the next step."


@dataclass(frozen=True)
class Predictions:
    "Predictions (without TTA) of N images of C classes, in the order of the dataset."

    labels: np.ndarray  # (N,) int64, indices into `vocab`
    predicted: np.ndarray  # (N,) int64, likewise
    probabilities: np.ndarray  # (N, C) float32; as precise as float16 when read from a file
    vocab: tuple[str, ...]
    images: str  # identifies the images and their order: two models with the same value can be paired
    on: str  # "test" or "held-out"
    items: np.ndarray | None = None  # (N,) int64, row numbers of held-out images; None for all of test in order
    files: tuple[str, ...] | None = None  # (N,) class/name of each image; None where the images were no files

    @property
    def correct(self) -> np.ndarray:
        "(N,) bool"
        return self.predicted == self.labels

    @property
    def errors(self) -> np.ndarray:
        "(M,) int64, the places of wrong predictions, the most confident first."
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    @property
    def confidence(self) -> np.ndarray:
        "(N,) float32, the probability of each predicted class; as in a file, so that the order of errors is the same."
        chosen = np.take_along_axis(self.probabilities, self.predicted[:, None], 1)[:, 0]
        return chosen.astype(np.float16).astype(np.float32)

    def image_name(self, i: int) -> str:
        "`cat/1.png`; `row 5 of test` where the images were no files."
        if self.files is not None:
            return self.files[i]
        return f"row {i:,} of test" if self.items is None else f"row {self.items[i]:,}"

    def save(self, path: Path) -> None:
        about = json.dumps({"vocab": self.vocab, "images": self.images, "on": self.on, "files": self.files})
        index = np.uint8 if len(self.vocab) <= 256 else np.uint16
        with atomic_write(path) as tmp, open(tmp, "wb") as f:
            np.savez_compressed(f, labels=self.labels.astype(index), predicted=self.predicted.astype(index),
                                probabilities=self.probabilities.astype(np.float16), about=np.array(about),
                                **({} if self.items is None else {"items": self.items.astype(np.uint32)}))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        "Raises PredictionsError; no pickle is read."
        again = f"python -m cifar_fast report {shlex.quote(str(path.parent))}"
        try:
            predictions = cls(**read_arrays(path))
            predictions.check()
            return predictions
        except FileNotFoundError:
            raise PredictionsError(f"no {path}: {again} makes it") from None
        except Exception as e:  # whatever zipfile, zlib and numpy raise on somebody's file
            reason = f"missing: {printable(e)}" if isinstance(e, KeyError) else printable(e) or type(e).__name__
            raise PredictionsError(f"{path} is not a file of predictions ({reason}); remove it, and "
                                   f"{again} makes it again") from None

    def check(self) -> None:
        "Raises ValueError where the values cannot be predictions."
        n, c = len(self.labels), len(self.vocab)
        if not n or not c:
            raise ValueError(f"it holds {n} images of {c} classes")
        if self.predicted.shape != (n,) or self.probabilities.shape != (n, c):
            raise ValueError("its arrays do not fit each other")
        if (self.items is None) != (self.on == "test") or (self.items is not None and self.items.shape != (n,)):
            raise ValueError("it does not say which images these are")
        if self.files is not None and len(self.files) != n:
            raise ValueError(f"it names {len(self.files)} files of {n} images")
        for name, values in (("label", self.labels), ("predicted class", self.predicted)):
            if values.min() < 0 or values.max() >= c:
                wrong = values[(values < 0) | (values >= c)][0]
                raise ValueError(f"{name} {wrong} is none of its {c} classes")
        if self.items is not None and (self.items.min() < 0 or len(np.unique(self.items)) < n):
            raise ValueError("it names an image twice, or one before the first")
        if not (np.abs(self.probabilities.sum(1) - 1) < 10 * HALF).all() or (self.probabilities < 0).any():
            raise ValueError("its probabilities do not sum to one")  # which non-finite ones do not either
        if (self.confidence < self.probabilities.max(1) - HALF).any():
            raise ValueError("a predicted class is not the most probable one")


def read_arrays(path: Path) -> dict:
    "The fields of `Predictions` from a file; no array is larger than what the file holds."
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
        for entry in archive.infolist():
            with archive.open(entry) as f:
                require_size(f, entry.file_size)
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        vocab, images, on, files = about["vocab"], about["images"], about["on"], about.get("files")
        if not isinstance(vocab, list) or not all(isinstance(v, str) for v in vocab):
            raise ValueError("its class names are not a list of texts")
        if not isinstance(images, str) or on not in ("test", "held-out"):
            raise ValueError("it does not say which images these are")
        if files is not None and not (isinstance(files, list) and all(isinstance(f, str) for f in files)):
            raise ValueError("its file names are not a list of texts")
        indices = {name: whole_numbers(file, name) for name in ("labels", "predicted", "items") if name in file}
        probabilities = file["probabilities"]
    if probabilities.dtype.kind != "f" or probabilities.ndim != 2:
        raise ValueError("its probabilities are not a table of fractions")
    return {**indices, "probabilities": probabilities.astype(np.float32), "vocab": tuple(vocab), "images": images,
            "on": on, "files": None if files is None else tuple(map(printable, files))}


def require_size(f, size: int) -> None:
    "Raises ValueError where a .npy claims more than its `size` bytes, which numpy would allocate before it reads."
    version = np.lib.format.read_magic(f)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(f)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it claims an array of shape {shape}, which it does not hold")


def whole_numbers(file, name: str) -> np.ndarray:
    "A vector of integers as int64."
    values = file[name]
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise ValueError(f"its {name} are not a list of whole numbers")
    return values.astype(np.int64)
