"""A recipe for images of another size: its crops, pads and holes follow.

Shifts in pixels and kernels of blurs stay as they are.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from cifar_fast.recipe.spec import SIDE, Recipe

# Arguments of Albumentations that are numbers of pixels. Where they may also be fractions, fractions stay.
PIXELS = {
    "PadIfNeeded": ("min_height", "min_width"), "Pad": ("padding",),
    "RandomCrop": ("height", "width"), "CenterCrop": ("height", "width"), "Resize": ("height", "width"),
    "RandomResizedCrop": ("size",), "RandomSizedCrop": ("size", "min_max_height"),
    "CoarseDropout": ("hole_height_range", "hole_width_range"),
}


def at_size(
    recipe: Recipe,
    size: int | None,  # side of the images, pixels; None is that of CIFAR-10
    keep_resize: bool = False,  # whether resize.size stays, as it is meant for `size` already
) -> Recipe:
    "The recipe for images of `size`, its numbers of pixels scaled from those that it is for; the same one at its own."
    ratio = (size or SIDE) / (recipe.size or SIDE)
    if ratio == 1:
        return replace(recipe, size=size)
    return replace(recipe, size=size, augment=tuple(scaled_transform(t, ratio) for t in recipe.augment),
                   resize=recipe.resize if keep_resize else scaled_resize(recipe.resize, ratio))


def scaled_transform(transform: Any, ratio: float) -> Any:
    if hasattr(transform, "transforms"):  # several: OneOf, Sequential …
        several = copy.copy(transform)
        several.transforms = [scaled_transform(t, ratio) for t in transform.transforms]
        return several
    pixels = PIXELS.get(type(transform).__name__)
    if not pixels:
        return transform
    takes = inspect.signature(type(transform).__init__).parameters
    args = {k: v for k, v in transform.get_transform_init_args().items() if k in takes}
    return type(transform)(**{**args, **{k: scaled(args[k], ratio) for k in pixels}, "p": transform.p})


def scaled(value: Any, ratio: float) -> Any:
    "Whole numbers are pixels; fractions and None stay as they are."
    if isinstance(value, list | tuple):
        return type(value)(scaled(v, ratio) for v in value)
    return max(1, round(value * ratio)) if isinstance(value, int) and value > 0 else value


def scaled_resize(resize: Callable | None, ratio: float) -> Callable | None:
    size = inspect.signature(resize).parameters.get("size") if resize else None
    return partial(resize, size=scaled(size.default, ratio)) if size else resize
