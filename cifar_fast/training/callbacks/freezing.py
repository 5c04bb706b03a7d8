"""Freezes all but the head for the first epochs, inside one fit."""

from __future__ import annotations

from fastai.callback.core import Callback


class Freezing(Callback):
    """For the first `epochs` only the last group trains, and as fastai has it batch norm: scales, shifts, statistics.

    What is frozen follows from the epoch alone, so a resumed run needs no state of it. As fastai's `unfreeze` does,
    the optimizer starts afresh: its state is cleared before the checkpoint of that epoch is saved.
    """

    order = 65  # before Checkpoint (100)

    def __init__(self, epochs: int):
        self.epochs = epochs

    def before_train(self):
        self.opt.freeze_to(-1 if self.epoch < self.epochs else 0)

    def after_epoch(self):
        if self.epoch + 1 == self.epochs:
            self.opt.clear_state()
