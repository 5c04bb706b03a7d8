"""What a net said about each image of the set it was measured on, kept beside its run."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write

NAME = "predictions.npz"
MOST_BYTES = 1 << 30  # decompressed; 10,000 images of ten classes take 0.2 MB


class PredictionsError(CifarFastError):
    "A file of predictions that cannot be worked with; the message names it and the next step."


@dataclass(frozen=True)
class Predictions:
    "Plain predictions (no TTA) of N images of C classes, in the order of the dataset."

    labels: np.ndarray  # (N,) int64, places in `vocab`
    predicted: np.ndarray  # (N,) int64, likewise
    probabilities: np.ndarray  # (N, C) float32; as precise as float16 once they have been in a file
    vocab: tuple[str, ...]
    images: str  # names the very images and their order: two nets with the same value can be paired
    on: str  # "test" or "held-out"
    items: np.ndarray | None = None  # (N,) int64, places in train of held-out images; None for all of test in order

    @property
    def correct(self) -> np.ndarray:
        "(N,) bool"
        return self.predicted == self.labels

    def save(self, path: Path) -> None:
        about = json.dumps({"vocab": self.vocab, "images": self.images, "on": self.on})
        place = np.uint8 if len(self.vocab) <= 256 else np.uint16
        with atomic_write(path) as tmp, open(tmp, "wb") as f:
            np.savez_compressed(f, labels=self.labels.astype(place), predicted=self.predicted.astype(place),
                                probabilities=self.probabilities.astype(np.float16), about=np.array(about),
                                **({} if self.items is None else {"items": self.items.astype(np.uint32)}))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        "Raises PredictionsError; no pickle is read."
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(i.file_size for i in archive.infolist()) > MOST_BYTES:
                    raise ValueError("it is larger than any such file of ours")
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                found = cls(file["labels"].astype(np.int64), file["predicted"].astype(np.int64),
                            file["probabilities"].astype(np.float32), tuple(map(str, about["vocab"])),
                            str(about["images"]), str(about["on"]),
                            file["items"].astype(np.int64) if "items" in file else None)
            n, c = len(found.labels), len(found.vocab)
            if found.probabilities.shape != (n, c) or found.predicted.shape != (n,) or found.labels.shape != (n,):
                raise ValueError("its arrays do not fit each other")
            if (found.items is None) != (found.on == "test") or (found.items is not None and len(found.items) != n):
                raise ValueError("it does not say which images these are")
            if n and max(found.labels.max(), found.predicted.max()) >= c:
                raise ValueError(f"it names a class beyond its {c}")
            if not np.isfinite(found.probabilities).all():
                raise ValueError("it holds probabilities that are no numbers")
        except FileNotFoundError:
            raise PredictionsError(f"no {path}: python -m cifar_fast report {path.parent} makes it") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
            raise PredictionsError(f"{path} is no file of predictions ({e}); remove it, and "
                                   f"python -m cifar_fast report {path.parent} makes it anew") from None
        return found
