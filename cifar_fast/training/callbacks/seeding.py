"""Tells the DataLoader which epoch it is in and seeds every batch by (seed, epoch, batch)."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from cifar_fast.utils.seeds import derive


class Seeding(Callback):
    "Order, augmentation, mixing and dropout then follow from the run's seed and the place in the run alone."

    order = -20  # before anything that draws

    run_valid = False

    def __init__(self, seed: int):
        self.seed = seed

    def before_train(self):
        if hasattr(self.dl, "set_epoch"):
            self.dl.set_epoch(self.epoch)

    def before_batch(self):
        torch.manual_seed(derive(self.seed, self.epoch, self.iter, 1))
