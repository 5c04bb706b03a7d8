"""What every opened model does, whatever runs it: reads images, and predicts their classes."""

from __future__ import annotations

import numpy as np

from cifar_fast.data.depth import Ranges
from cifar_fast.data.images import read_image
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError

UNKNOWN = "unknown"
"The label of an image whose confidence is below the threshold."


class BasePredictor:
    "A subclass is a dataclass with these fields, and `probabilities`."

    vocab: list[str]
    card: Card | None  # of its run; None for a .pkl, which has none
    origin: str  # where it came from, for a message
    size: int  # of the images, pixels
    resize_mode: str  # how images are brought to that square
    temperature: float  # by which logits are divided before the softmax
    threshold: float  # least confidence; below it `label` gives UNKNOWN

    def probabilities(self, images: np.ndarray, tta: bool = False,
                      bs: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        "Class probabilities (N, C) float32 of (N, size, size, 3) uint8; with `tta` also means of image and mirror."
        raise NotImplementedError

    def predict(self, images: np.ndarray, tta: bool = False, bs: int | None = None) -> np.ndarray:
        """Class probabilities (N, C) float32 of (N, size, size, 3) uint8 images; `tta`: mean of image and mirror.

        Raises ExportError where the model gives non-finite values.
        """
        plain, mirrored = self.probabilities(images, tta, bs)
        return self.finite(mirrored if tta else plain)

    def read(self, source) -> np.ndarray:
        "An image (see `read_image`) as the model sees it, (size, size, 3) uint8. Raises ImageError."
        return read_image(source, self.size, self.resize_mode, self.ranges)

    @property
    def tta_applies(self) -> bool:
        "False where left and right differ (`tta=False` in the recipe), so that a mirror image is another thing."
        return not self.card or self.card.recipe.get("tta", True)

    @property
    def ranges(self) -> Ranges | None:
        "Those that images of more than eight bits are scaled from, see `data.depth`."
        return self.card.data.ranges if self.card else None

    def label(self, probs: np.ndarray) -> str:
        "The class of highest probability (C,), or UNKNOWN below the threshold."
        return self.vocab[probs.argmax()] if probs.max() >= self.threshold else UNKNOWN

    def finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise ExportError(f"{self.origin} gives non-finite values (NaN or inf): its weights are too large; restore "
                              f"the files, or train again")
        return values


def probe(size: int) -> np.ndarray:
    "A black and a white image, (2, size, size, 3) uint8: a model that was opened must classify them."
    return np.stack([np.full((size, size, 3), grey, np.uint8) for grey in (0, 255)])
