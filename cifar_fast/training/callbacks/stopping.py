"""Stop early, or keep the best weights, by the validation accuracy in the state, balanced where classes are unequal."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelFitException
from safetensors.torch import save

from cifar_fast.training.callbacks.ema import EMA
from cifar_fast.training.callbacks.stateful import StatefulCallback
from cifar_fast.training.state import TrainState, watched
from cifar_fast.utils.files import atomic_write


class Patience(Callback):
    "Stops after `patience` epochs in a row without a better validation accuracy."

    order = 60  # after History (55)

    def __init__(self, state: TrainState, patience: int):
        self.state, self.patience = state, patience

    def after_epoch(self):
        best = self.state.best
        if self.state.epoch - best["epoch"] >= self.patience:
            print(f"Epoch {self.state.epoch}: no better validation {self.state.watches} since epoch {best['epoch']}, "
                  f"so the run ends (patience={self.patience}).")
            raise CancelFitException


class Target(Callback):
    "Stops once validation accuracy reaches `target`, a fraction in [0, 1]."

    order = 62

    def __init__(self, state: TrainState, target: float):
        self.state, self.target = state, target

    def after_epoch(self):
        row = self.state.rows[-1]
        now = row[watched(row)]
        if now >= self.target:
            print(f"Epoch {self.state.epoch}: validation {self.state.watches} {now:.4f} has reached the target "
                  f"{self.target:.4f}.")
            raise CancelFitException


class KeepBest(StatefulCallback):
    "Holds the weights (and the averaged ones) of the epoch with the best validation accuracy; loads them at the end."

    order = 59  # after History, before those that stop

    def __init__(self, state: TrainState, ema: EMA | None = None, path: Path | None = None):
        self.state, self.ema, self.path = state, ema, path  # `path`: a .safetensors to write them to as well
        self.weights = None  # {"model": its state dict, "ema": …}

    def state_dict(self):
        return {"weights": self.weights}

    def load_state_dict(self, saved):
        self.weights = saved["weights"]

    def after_epoch(self):
        if not self.state.is_best:
            return
        self.weights = {k: deepcopy(m.state_dict()) for k, m in self.modules().items()}
        if self.path:
            best = self.weights.get("ema", self.weights["model"])
            with atomic_write(self.path) as tmp:
                tmp.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in best.items()}))

    def after_fit(self):
        if self.weights is not None:
            for name, module in self.modules().items():
                module.load_state_dict(self.weights[name])

    def modules(self) -> dict[str, torch.nn.Module]:
        return {"model": self.learn.model, **({"ema": self.ema.module} if self.ema else {})}
