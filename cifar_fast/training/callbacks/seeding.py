"""Sets the DataLoader's epoch and seeds every batch by (seed, epoch, batch)."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from cifar_fast.data.loaders import SeededDL
from cifar_fast.utils.seeds import derive


class Seeding(Callback):
    """Order, augmentation, mixing and dropout then follow from the run's seed and the place in the run alone.

    With `repeat` every epoch has the same ones as the epoch so many before it.
    """

    order = -20  # before anything that uses random numbers

    run_valid = False
    repeat = 0  # also of a Learner that was exported before there was one

    def __init__(self, seed: int, repeat: int = 0):
        self.seed, self.repeat = seed, repeat

    @property
    def seeded_epoch(self) -> int:
        return self.epoch % self.repeat if self.repeat else self.epoch

    def before_train(self):
        if isinstance(self.dl, SeededDL):
            self.dl.set_epoch(self.seeded_epoch)

    def before_batch(self):
        torch.manual_seed(batch_seed(self.seed, self.seeded_epoch, self.iter, getattr(self.dl, "place", ())))


def batch_seed(seed: int, epoch: int, batch: int, place: tuple[int, ...] = ()) -> int:
    "The seed for the randomness of one training batch after the DataLoader: mixing, dropout; see `SeededDL.place`."
    return derive(seed, epoch, batch, 1, *place)
