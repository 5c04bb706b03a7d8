"""Smaller images in the early part of a run: there a net learns coarse things, which cost less at low resolution."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from torch.nn.functional import interpolate

__all__ = ["progressive"]


class Progressive(Callback):
    "Training batches are shrunk (bilinear, antialiased) to `size` × `size` until the part `until` of the run."

    order = 15  # on the device and normalised, before anything is mixed
    run_valid = False

    def __init__(self, size: int, until: float):
        self.size, self.until = size, until

    def before_batch(self):
        x = self.x
        if self.pct_train < self.until and self.size < min(x.shape[-2:]):
            small = interpolate(x.as_subclass(torch.Tensor), size=(self.size, self.size), mode="bilinear",
                                antialias=True)
            self.learn.xb = (small,)


def progressive(*, size: int = 24, until: float = 0.4):
    "`size` in pixels up to the part `until` of the run, the images' own size after it."
    if not 8 <= size:
        raise ValueError(f"resize.size={size}: expected at least 8 pixels")
    if not 0 <= until < 1:
        raise ValueError(f"resize.until={until}: expected a part of the run, 0 or more and less than 1")
    return Progressive(size, until)
