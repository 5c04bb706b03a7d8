"""An exponential moving average of the trained weights, by timm."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from fastai.learner import Metric
from timm.utils import ModelEmaV3

from cifar_fast.training.callbacks.stateful import StatefulCallback
from cifar_fast.utils.errors import SettingError

__all__ = ["ema"]


class EMA(StatefulCallback):
    "Keeps timm's `ModelEmaV3` of the model, updated after each step; it starts from the weights after the first."

    order = 10
    run_valid = False

    def __init__(self, decay: float, warmup: bool):
        self.decay, self.warmup, self.average, self.updates = decay, warmup, None, 0

    @property
    def module(self) -> torch.nn.Module:
        "The averaged model."
        return self.average.module

    def before_fit(self):
        self.average, self.updates = ModelEmaV3(self.model, self.decay, use_warmup=self.warmup), 0

    def after_step(self):
        self.updates += 1
        self.average.update(self.model, self.updates)

    def state_dict(self):
        return {"average": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, saved):
        self.module.load_state_dict(saved["average"])
        self.updates = saved["updates"]


class EMAAccuracy(Metric):
    "Validation accuracy of the averaged weights, on the same batches and in the same precision as the trained ones."

    name = "ema_accuracy"

    def __init__(self, ema: EMA, context: Callable[[], AbstractContextManager] = nullcontext):
        self.ema, self.context = ema, context  # `context` is called for each forward pass
        self.reset()

    def reset(self):
        self.correct = self.count = 0
        self.predicted = None  # (B,) of the last batch, for a metric that follows

    def accumulate(self, learn):
        if learn.training:
            return
        with torch.no_grad(), self.context():
            self.predicted = self.ema.module(*learn.xb).argmax(1)
        self.correct += int((self.predicted == learn.y).sum())
        self.count += len(self.predicted)

    @property
    def value(self):
        return self.correct / self.count if self.count else None


def fitting_decay(decay: float, warmup: bool, steps: int) -> float:
    """`decay`, or where that averages over more than a tenth of a run of `steps`, the one that averages over a tenth.

    A longer average of a short run still holds its first weights. With warm-up the average at the end is over
    steps^(2/3), which is less than a tenth from 1,000 steps on.
    """
    window, most = min(1 / (1 - decay), steps ** (2 / 3) if warmup else math.inf), max(2, steps / 10)
    return decay if window <= most else round(1 - 1 / most, max(4, math.ceil(math.log10(most)) + 1))


def ema(*, decay: float = 0.999, warmup: bool = False):
    "`decay` per step; with `warmup` it grows from 0 as 1-(1+step)^(-2/3), for runs short against 1/(1-decay) steps."
    if not 0 < decay < 1:
        raise SettingError(f"ema.decay={decay}: expected a number between 0 and 1")
    return EMA(decay, warmup)
