"""Batch norm's running statistics in runs that are too short for their moving averages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from fastai.callback.core import Callback
from fastai.imports import noop
from torch.optim.swa_utils import update_bn

from cifar_fast.training.batch_transforms import BatchTransforms
from cifar_fast.training.callbacks.ema import EMA
from cifar_fast.utils.seeds import rng_restored

YOUNG = 100
"Steps of a whole run below which the averages still hold too much of the first weights (momentum is 0.1)."


class RecomputedBatchNorm(Callback):
    """Before each validation, replaces the running statistics by their means over the epoch's training images.

    Training itself uses each batch's own statistics, so weights and training loss stay what they are.
    """

    order = 58  # after History (55) has taken the time of the epoch's training
    share = staticmethod(noop)  # called with each model: the mean over the processes that train together

    def __init__(self, transforms: BatchTransforms, context: Callable[[], AbstractContextManager],
                 ema: EMA | None = None):
        self.transforms, self.context, self.ema = transforms, context, ema

    def after_train(self):
        with rng_restored(), torch.compiler.set_stance("force_eager"):  # dropout uses random numbers
            for module in (self.learn.model, *([self.ema.module] if self.ema else [])):
                self.dls.train.set_epoch(self.seeding.seeded_epoch)
                with self.context():
                    update_bn(self.images(), module)
                self.share(module)
        self.dls.train.set_epoch(self.epoch + 1)

    def images(self):
        "Training batches, augmented but neither shrunk nor mixed, as the images to predict are neither."
        for x, y in self.dls.train:
            yield self.transforms.apply(x, y, 1.0, training=False)[0]
