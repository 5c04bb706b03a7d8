"""What happens to a batch between the DataLoader and the model: one ordered list, derived from the recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from torch import nn

from cifar_fast.recipe import Recipe

TORCH_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class BatchTransform:
    "One step: images (B, 3, H, W) and targets (B,) or (B, C) → the same; `kind` says what it chose for this batch."

    training_only = True
    kind: str | None = None  # for transforms that do different things to different batches
    kinds: frozenset[str] = frozenset()  # all that `kind` can be

    def setup(self, model: nn.Module, classes: int) -> None:
        "Called once before the first batch."

    def __call__(self, x: torch.Tensor, y: torch.Tensor, fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
        "`fraction` of the training is done, in [0, 1]."
        raise NotImplementedError


class MemoryFormat(BatchTransform):
    "Model and images in the same memory format: 'contiguous' (NCHW) or 'channels_last' (NHWC)."

    training_only = False

    def __init__(self, name: str):
        self.format = TORCH_FORMATS[name]

    def setup(self, model, classes):
        model.to(memory_format=self.format)

    def __call__(self, x, y, fraction):
        return x.contiguous(memory_format=self.format), y


class BatchTransforms(Callback):
    """Applies a list of `BatchTransform`s in order.

    The model gets plain tensors: fastai's subclasses send every operation through Python once more. Metrics see the
    labels (B,) that the DataLoader gave: the accuracy on a mixed image counts its first class.
    """

    order = 8  # on the device and normalized; before EMA (10) copies the model, whose memory format is set here

    def __init__(
        self,
        transforms: Sequence[BatchTransform],
        classes: int,
        fraction: float | None = None,  # of the training, where it is held (lr_find); None: that of the fit
        views: int = 1,  # of each image in a training batch, one view of all after the other: they are treated alike
    ):
        self.transforms, self.classes, self.fraction, self.views = list(transforms), classes, fraction, views
        self.labels = None

    @property
    def kind(self) -> str:
        "What was done to the batch at hand: 'none', or the name of a mixing."
        return next((t.kind for t in self.transforms if t.kind), "none")

    @property
    def kinds(self) -> frozenset[str]:
        "All that `kind` can be; empty where every batch is treated the same."
        return frozenset().union(*(t.kinds for t in self.transforms))

    def setup(self, model: nn.Module) -> None:
        for transform in self.transforms:
            transform.setup(model, self.classes)

    def apply(self, x, y, fraction: float, training: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)
        for transform in self.transforms:
            if transform.training_only and training and self.views > 1:
                x, y = self.apply_alike(transform, x, y, fraction)
            elif training or not transform.training_only:
                x, y = transform(x, y, fraction)
        return x, y

    def apply_alike(self, transform: BatchTransform, x, y, fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
        "With the same draws for every view, so that the targets of an image's views are equal."
        state, done = torch.get_rng_state(), []
        for view in zip(x.chunk(self.views), y.chunk(self.views), strict=True):
            torch.set_rng_state(state)
            done.append(transform(*view, fraction))
        return tuple(torch.cat(parts) for parts in zip(*done, strict=True))

    def before_fit(self):
        self.setup(self.learn.model)

    def before_batch(self):
        self.labels = self.yb
        fraction = self.pct_train if self.fraction is None else self.fraction
        x, y = self.apply(self.x, self.y, fraction, self.training)
        self.learn.xb, self.learn.yb = (x,), (y,)

    def after_loss(self):
        self.learn.yb = self.labels


def batch_transforms(recipe: Recipe, classes: int, memory_format: str, fraction: float | None = None):
    "The `BatchTransforms` of a recipe: resize, mix, memory format."
    chosen = [make() for make in (recipe.resize, recipe.mix) if make]
    return BatchTransforms([*chosen, MemoryFormat(memory_format)], classes, fraction, recipe.views)
