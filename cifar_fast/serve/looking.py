"""Files that somebody gave → what the net sees in each, or why it sees nothing."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cifar_fast.data.errors import ImageError
from cifar_fast.data.images import read_image
from cifar_fast.export.predictor import Predictor, probabilities
from cifar_fast.serve.gradcam import grad_cam
from cifar_fast.serve.upload import Given
from cifar_fast.utils.text import printable

VIEW = 64
"Side of the overlay in pixels: maps are 5×5 to 32×32, and the browser smooths the rest."

# From where the net hardly looked to where it looked most: dark to light, so that it reads without colours too.
RAMP = np.array([[68, 20, 120], [204, 65, 90], [250, 150, 40], [255, 240, 130]], np.float32)
NO_NUMBER = "gives answers that are no numbers: the weights of this net are too large to count with"

OPAQUE = 0.62  # of the strongest place; the image still shows through


@dataclass(frozen=True)
class Seen:
    "One image and what the net says of it; or, where it could not be read, the `reason`."

    name: str  # as the browser gave it, on one line
    reason: str | None = None
    square: np.ndarray | None = None  # (32, 32, 3) uint8: all that the net sees
    plain: np.ndarray | None = None  # (C,) probabilities
    mirrored: np.ndarray | None = None  # (C,) mean probabilities of the image and its mirror
    cam: np.ndarray | None = None  # (h, w) 0..1, for the class that `plain` finds most probable


class Named(io.BytesIO):
    "A file in memory with a name, by which `read_image` speaks of it."

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


class Looker:
    "An opened export that many threads may ask: they read images side by side and take turns at the net."

    def __init__(self, exported: Predictor):
        self.exported, self.turn = exported, threading.Lock()

    def look(self, given: list[Given]) -> list[Seen]:
        "What is seen in each, in their order."
        found = [self.read(*one) for one in given]
        good = [i for i, seen in enumerate(found) if seen.reason is None]
        if good:
            squares = np.stack([found[i].square for i in good])
            for i, *said in zip(good, *self.ask(squares), strict=True):
                told = all(np.isfinite(p).all() for p in said)
                found[i] = Seen(found[i].name, None, found[i].square, *said) if told else Seen(found[i].name, NO_NUMBER)
        return found

    @staticmethod
    def read(name: str, content: bytes | None, reason: str | None) -> Seen:
        name = printable(name) or "image"
        if reason or not content:
            return Seen(name, reason or "is empty (0 bytes)")
        try:
            return Seen(name, square=read_image(Named(content, name)))
        except ImageError as e:
            return Seen(name, str(e).removeprefix(f"{name}: "))

    def ask(self, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        "Probabilities plain and with the mirror (N, C), and where the net looked (N, h, w)."
        x = self.exported.normalize(squares)
        with self.turn:
            plain, mirrored = probabilities(self.exported.model, [x], tta=True)
            cam = grad_cam(self.exported.model, x, torch.from_numpy(plain.argmax(1)).to(x.device))
        return plain, mirrored, cam.numpy()


# ---------------------------------------------------------------- for the eye and the ear


def overlay(cam: np.ndarray) -> np.ndarray:
    "A Grad-CAM map as (VIEW, VIEW, 4) uint8 RGBA: the stronger, the lighter and the less transparent."
    smooth = Image.fromarray(cam.astype(np.float32)).resize((VIEW, VIEW), Image.Resampling.BICUBIC)
    strength = np.asarray(smooth).clip(0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    rgb = [np.interp(strength, stops, RAMP[:, c]) for c in range(3)]
    return np.stack([*rgb, 255 * OPAQUE * strength**0.7], 2).round().astype(np.uint8)


def place(cam: np.ndarray) -> str:
    "Where a map is strongest, in words."
    if not cam.any():
        return "no place spoke for this class"
    row, column = (int(3 * (i + 0.5) / n)
                   for i, n in zip(np.unravel_index(cam.argmax(), cam.shape), cam.shape, strict=True))
    words = ("upper", "middle", "lower")[row], ("left", "middle", "right")[column]
    return f"it looked most at the {'centre' if words == ('middle', 'middle') else ' '.join(words)}"


def data_uri(pixels: np.ndarray) -> str:
    "An image as a data: URI, so that nothing has to be stored for the page to ask for."
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
