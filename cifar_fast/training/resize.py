"""Smaller images early in training: coarse features are learned there, at low resolution and lower cost."""

from __future__ import annotations

from torch.nn.functional import interpolate

from cifar_fast.training.batch_transforms import BatchTransform
from cifar_fast.utils.errors import SettingError

__all__ = ["progressive"]


class Progressive(BatchTransform):
    "Shrinks training images (bilinear, antialiased) to `size` × `size` for the first `until` fraction of training."

    def __init__(self, size: int, until: float):
        self.size, self.until = size, until

    def __call__(self, x, y, fraction):
        if fraction < self.until and self.size < min(x.shape[-2:]):
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return x, y


def progressive(*, size: int = 24, until: float = 0.4):
    "`size` in pixels for the first `until` fraction of training, the images' own size after it."
    if not 8 <= size:
        raise SettingError(f"resize.size={size}: expected at least 8 pixels")
    if not 0 <= until < 1:
        raise SettingError(f"resize.until={until}: expected a fraction of training, 0 or more and less than 1")
    return Progressive(size, until)
