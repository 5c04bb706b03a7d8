"""Uploaded images → predictions and Grad-CAM maps, or why an image has none."""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cifar_fast.data.errors import ImageError
from cifar_fast.export.base import BasePredictor
from cifar_fast.export.card_format import ExportError
from cifar_fast.serve.upload import Upload
from cifar_fast.utils.text import printable

NON_FINITE = "The prediction is not finite (NaN or inf): the model's weights are damaged, or its training diverged"

OVERLAY_SIDE = 64  # pixels; maps are 5×5 to 32×32 as a rule, and the browser smooths the rest
OPACITY = 0.62  # of the strongest place; the image still shows through
# From the weakest place to the strongest: dark to light, so that it reads without colours too.
COLOURS = np.array([[68, 20, 120], [204, 65, 90], [250, 150, 40], [255, 240, 130]], np.float32)


@dataclass(frozen=True)
class ImageResult:
    "The predictions for one image, or the `error` that it has instead."

    name: str  # as the browser sent it, on one line
    error: str | None = None
    image: np.ndarray | None = None  # (size, size, 3) uint8: the model's input
    probs: np.ndarray | None = None  # (C,) probabilities
    tta: np.ndarray | None = None  # (C,) mean probabilities of the image and its mirror image; None without TTA
    cam: np.ndarray | None = None  # (h, w) in [0, 1], for the class that `probs` ranks first; None if not asked for
    label: str = ""  # the class that `probs` ranks first, or "unknown" where it is below the threshold


class Classifier:
    "An exported model for many threads: they decode images in parallel and take turns at the model."

    def __init__(self, predictor: BasePredictor):
        self.predictor, self.lock, self.loading = predictor, threading.Lock(), threading.Lock()

    def classify(
        self,
        uploads: list[Upload],
        check: Callable[[], None] = lambda: None,  # called between images; raises to stop
        explain: bool = True,  # with Grad-CAM, for which torch is imported, once in a process
    ) -> list[ImageResult]:  # in the order of `uploads`
        results = []
        for upload in uploads:
            check()
            results.append(self.decode(upload))
        good = [i for i, result in enumerate(results) if result.error is None]
        if good:
            images = np.stack([results[i].image for i in good])
            with self.lock:
                check()
                plain, tta = self.predictor.probabilities(images, tta=self.predictor.tta_applies)
            cams = self.grad_cams(images, plain) if explain else [None] * len(good)
            mirrored_too = [None] * len(good) if tta is None else tta
            for i, probs, mirrored, cam in zip(good, plain, mirrored_too, cams, strict=True):
                label = printable(self.predictor.label(probs))
                results[i] = ImageResult(results[i].name, None, results[i].image, probs, mirrored, cam, label) \
                    if np.isfinite(probs).all() else ImageResult(results[i].name, NON_FINITE)
        return results

    def decode(self, upload: Upload) -> ImageResult:
        name = printable(upload.name) or "image"
        if upload.error:
            return ImageResult(name, upload.error)
        if not upload.content.read(1):
            return ImageResult(name, "is empty (0 bytes)")
        upload.content.seek(0)
        try:
            return ImageResult(name, image=self.predictor.read(upload.content))
        except ImageError as e:
            return ImageResult(name, str(e).removeprefix("image: "))

    def grad_cams(self, images: np.ndarray, probs: np.ndarray) -> list[np.ndarray | None]:
        "A map (h, w) of each image, for the class that `probs` (N, C) rank first; None where there is none."
        import torch

        from cifar_fast.serve.gradcam import grad_cam

        try:
            with self.loading:  # takes seconds the first time; meanwhile others are predicted
                model = self.predictor.model
        except ExportError as e:  # a run that was passed on without its weights, or without the file of its model
            logging.getLogger(__name__).warning("no Grad-CAM: %s", e)
            return [None] * len(images)
        with self.lock:  # the model is hooked
            cams = grad_cam(model, self.predictor.normalize(images), torch.from_numpy(probs.argmax(1)))
        return [cam if np.isfinite(cam).all() else None for cam in cams.numpy()]


# ---------------------------------------------------------------- images and words of a page


def overlay(cam: np.ndarray) -> np.ndarray:
    "A Grad-CAM map as (OVERLAY_SIDE, OVERLAY_SIDE, 4) uint8 RGBA: the stronger, the lighter and the more opaque."
    smooth = Image.fromarray(cam.astype(np.float32)).resize((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)
    strength = np.asarray(smooth).clip(0, 1)
    stops = np.linspace(0, 1, len(COLOURS))
    rgb = [np.interp(strength, stops, COLOURS[:, c]) for c in range(3)]
    return np.stack([*rgb, 255 * OPACITY * strength**0.7], 2).round().astype(np.uint8)


def strongest_place(cam: np.ndarray) -> str:
    "Where a map is strongest, as words."
    if not cam.any():
        return "no place contributed to this class"
    row, column = (int(3 * (i + 0.5) / n)
                   for i, n in zip(np.unravel_index(cam.argmax(), cam.shape), cam.shape, strict=True))
    words = ("upper", "middle", "lower")[row], ("left", "middle", "right")[column]
    return f"strongest at the {'centre' if words == ('middle', 'middle') else ' '.join(words)}"


def data_uri(pixels: np.ndarray) -> str:
    "An image as a data: URI, so that the server has to keep no file for the page."
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
