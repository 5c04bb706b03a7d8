"""One row an epoch, from fastai's Recorder to a CSV that is complete after every epoch."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pandas as pd
from fastai.callback.core import Callback

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import write_text

EXPLODED = 1000
"A loss so many times its first value (or 1, if that is less) comes back no more; cross-entropy begins near log C."


class DivergedError(CifarFastError):
    "The loss is no number any more, or beyond all bounds; the message says where, at which rate, and what to try."


def loss_ratio(recorder) -> float:
    "The smoothed loss in multiples of the first one, of 1 where that was less; nan where it is no number."
    first = float(recorder.losses[0]) if recorder.losses else 1.0
    now = float(recorder.smooth_loss.value)
    return now / max(first, 1.0) if math.isfinite(now) else math.nan


class History(Callback):
    "Rows of what Recorder measured, with learning rate, momentum, training seconds and images a second."

    order = 55  # after Recorder (50)

    def __init__(self,
        path: Path | None = None, # CSV to (re)write after every epoch
    ):
        self.path = path

    def before_fit(self):
        self.rows, self.steps = [], []

    def before_train(self):
        self.start, self.images, self.before = time.perf_counter(), 0, 0.0

    def saved(self) -> dict:
        return {"rows": self.rows, "steps": self.steps}

    def restore(self, saved: dict) -> None:
        self.rows, self.steps = [dict(row) for row in saved["rows"]], list(saved["steps"])
        self.write()

    def saved_epoch(self) -> dict:
        return {"images": self.images, "before": self.before + time.perf_counter() - self.start}

    def restore_epoch(self, saved: dict) -> None:
        self.images, self.before = saved["images"], saved["before"]

    def after_batch(self):
        if not self.training:
            return
        hyper = self.opt.hypers[-1]
        if not loss_ratio(self.recorder) < EXPLODED:  # nan is not less than anything
            raise DivergedError(f"the loss became {float(self.loss.detach()):.4g} in epoch {self.epoch + 1}, step "
                           f"{self.iter + 1}, at a learning rate of {hyper['lr']:.2g}; try a lower one (lr=…), or "
                           f"clip=1")
        # A number for its tensor: a small one that stays, every step, between large ones that go, cuts up a CPU's heap
        # (`strided` in bf16 held 8 GB after an hour).
        self.recorder.losses[-1] = float(self.recorder.losses[-1])
        self.images += len(self.x)
        self.steps.append((hyper["lr"], hyper.get("mom")))

    def after_train(self):
        self.seconds = self.before + time.perf_counter() - self.start

    def after_epoch(self):
        names = list(self.recorder.metric_names[1:])
        values = dict(zip(names, self.recorder.values[-1], strict=False))
        row = {"epoch": self.epoch + 1, **{k: v for k, v in values.items() if v is not None},
               "lr": self.steps[-1][0], "momentum": self.steps[-1][1], "seconds": self.seconds,
               "images_per_second": self.images / self.seconds}
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        if self.path:
            write_text(self.path, self.frame().to_csv(index=False))

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)
