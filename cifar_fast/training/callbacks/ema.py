"""An exponential moving average of the weights, by timm, beside the weights that are trained."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from fastai.learner import Metric
from timm.utils import ModelEmaV3

__all__ = ["ema"]


class EMA(Callback):
    "Keeps timm's `ModelEmaV3` of the model, updated after each step; it starts from the weights after the first."

    order = 10
    run_valid = False

    def __init__(self, decay: float, warmup: bool):
        self.decay, self.warmup = decay, warmup

    def before_fit(self):
        self.average = ModelEmaV3(self.model, self.decay, use_warmup=self.warmup)
        self.updates = 0

    def after_step(self):
        self.updates += 1
        self.average.update(self.model, self.updates)

    def saved(self) -> dict:
        return {"average": self.average.module.state_dict(), "updates": self.updates}

    def restore(self, saved: dict) -> None:
        self.average.module.load_state_dict(saved["average"])
        self.updates = saved["updates"]


class EMAAccuracy(Metric):
    "Validation accuracy of the averaged weights, in the same pass as that of the trained ones."

    name = "ema_accuracy"

    def __init__(self, ema: EMA):
        self.ema = ema

    def reset(self):
        self.right = self.count = 0

    def accumulate(self, learn):
        if learn.training or not hasattr(self.ema, "average"):
            return
        with torch.no_grad():
            pred = self.ema.average.module(*learn.xb).argmax(1)
        self.right += int((pred == learn.y).sum())
        self.count += len(pred)

    @property
    def value(self):
        return self.right / self.count if self.count else None


def ema(*, decay: float = 0.999, warmup: bool = False):
    "`decay` a step; `warmup` lets it grow from 0 as 1-(1+step)^(-2/3), for runs short against 1/(1-decay) steps."
    if not 0 < decay < 1:
        raise ValueError(f"ema.decay={decay}: expected a number between 0 and 1")
    return EMA(decay, warmup)
