"""Stop early, keep the best: fastai's trackers, told what to watch and made to say what they did."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import EarlyStoppingCallback
from safetensors.torch import save

from cifar_fast.utils.files import atomic_write


def watched(names) -> str:
    "The Recorder's column to watch: the accuracy of the weights that will be exported, so with EMA the averaged ones'."
    return "valid_ema_accuracy" if "valid_ema_accuracy" in names else "valid_accuracy"


def watched_value(recorder) -> float:
    "What `watched` was after the last epoch."
    names = list(recorder.metric_names[1:])
    return recorder.values[-1][names.index(watched(names))]


class Patience(EarlyStoppingCallback):
    "fastai's early stopping on validation accuracy: after `patience` epochs in a row without a new best."

    def __init__(self, patience: int):
        super().__init__(monitor="valid_accuracy", patience=patience)

    def before_fit(self):
        self.monitor = watched(self.recorder.metric_names)
        super().before_fit()

    def saved(self) -> dict:
        return {"best": float(self.best), "wait": self.wait}

    def restore(self, saved: dict) -> None:
        self.best, self.wait = saved["best"], saved["wait"]


class Target(Callback):
    "Stop once validation accuracy reaches `target` (a share of 1)."

    order = 62

    def __init__(self, target: float):
        self.target = target

    def after_epoch(self):
        now = watched_value(self.recorder)
        if now >= self.target:
            print(f"Epoch {self.epoch + 1}: validation accuracy {now:.4f} has reached the target {self.target:.4f}.")
            raise CancelFitException


class KeepBest(Callback):
    "Remembers the weights (and the average's) of the epoch with the best validation accuracy; loads them at the end."

    order = 61  # after Recorder, before those that stop

    def __init__(self, path: Path | None = None):  # .safetensors to keep them in as well
        self.path = path

    def before_fit(self):
        self.best, self.epoch_of_best, self.state = float("-inf"), None, None

    def saved(self) -> dict:
        return {"best": float(self.best), "epoch_of_best": self.epoch_of_best, "state": self.state}

    def restore(self, saved: dict) -> None:
        self.best, self.epoch_of_best, self.state = saved["best"], saved["epoch_of_best"], saved["state"]

    def after_epoch(self):
        now = watched_value(self.recorder)
        if now > self.best:
            self.best, self.epoch_of_best = now, self.epoch
            self.state = {k: deepcopy(m.state_dict()) for k, m in self._modules().items()}
            if self.path:
                best = self.state.get("ema", self.state["model"])
                with atomic_write(self.path) as tmp:
                    tmp.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in best.items()}))

    def after_fit(self):
        if self.state is not None:
            for name, module in self._modules().items():
                module.load_state_dict(self.state[name])

    def _modules(self) -> dict[str, torch.nn.Module]:
        average = getattr(getattr(self.learn, "ema", None), "average", None)
        return {"model": self.model, **({"ema": average.module} if average is not None else {})}
