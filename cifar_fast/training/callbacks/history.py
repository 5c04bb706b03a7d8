"""The one writer of `TrainState`: what fastai's Recorder measured, as one row per epoch and a CSV after each."""

from __future__ import annotations

import math
import time
from pathlib import Path

from fastai.callback.core import Callback

from cifar_fast.training.batch_transforms import BatchTransforms
from cifar_fast.training.state import TrainState
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import write_text

DIVERGED = 1000
"A loss so many times its first value (or 1, if that is less) never recovers; cross-entropy starts near log C."


class DivergedError(CifarFastError):
    "The loss is non-finite or far above its first value; the message says where, at which rate, and what to try."


def loss_ratio(recorder) -> float:
    "The smoothed loss in multiples of the first one, of 1 where that was less; NaN where it is non-finite."
    first = float(recorder.losses[0]) if recorder.losses else 1.0
    now = float(recorder.smooth_loss.value)
    return now / max(first, 1.0) if math.isfinite(now) else math.nan


class History(Callback):
    "Writes rows, hyperparameters and mixing counts into the state."

    order = 55  # after Recorder (50)

    def __init__(
        self,
        state: TrainState,
        transforms: BatchTransforms | None = None,  # whose kinds of mixing are counted
        path: Path | None = None,  # CSV to (re)write after every epoch
    ):
        self.state, self.transforms, self.path = state, transforms, path
        self.start, self.images, self.before = time.perf_counter(), 0, 0.0
        self.parallel = None  # set by `fit`: what several processes count together

    def before_train(self):
        self.start, self.images, self.before = time.perf_counter(), 0, 0.0

    def load_state_dict(self, saved: dict) -> None:
        "Take over the state of the run that is resumed; see `TrainState.load_state_dict`."
        memory_format, speeds = self.state.memory_format, self.state.format_speeds
        self.state.load_state_dict(saved)
        self.state.resumes += 1
        self.state.memory_format, self.state.format_speeds = memory_format, speeds  # what this process trains in
        self.write()

    def epoch_state(self) -> dict:
        "Images and seconds of the current epoch so far."
        return {"images": self.images, "before": self.before + time.perf_counter() - self.start}

    def load_epoch_state(self, saved: dict) -> None:
        self.images, self.before = saved["images"], saved["before"]

    def after_batch(self):
        if not self.training:
            return
        hyper, views = self.opt.hypers[-1], self.transforms.views if self.transforms else 1
        if not loss_ratio(self.recorder) < DIVERGED:  # NaN is not less than anything
            raise DivergedError(f"the loss became {float(self.loss.detach()):.4g} in epoch {self.epoch + 1}, step "
                                f"{self.iter + 1}, at a learning rate of {hyper['lr']:.2g}; try a lower one (lr=…), or "
                                f"clip=1")
        # A number instead of its tensor: small tensors kept every step, between large ones that are freed, fragment the
        # CPU's heap, and a long run's memory grows by gigabytes.
        self.recorder.losses[-1] = float(self.recorder.losses[-1])
        self.images += self.parallel.images if self.parallel else len(self.x) // views
        self.state.hypers.append((hyper["lr"], hyper.get("mom")))
        if self.transforms is not None and self.transforms.kinds:
            for kind, count in (self.parallel.kinds if self.parallel else {self.transforms.kind: 1}).items():
                self.state.mix_counts[kind] = self.state.mix_counts.get(kind, 0) + count

    def after_train(self):
        self.seconds = self.before + time.perf_counter() - self.start

    def after_epoch(self):
        names = list(self.recorder.metric_names[1:])
        values = dict(zip(names, self.recorder.values[-1], strict=False))
        lr, momentum = self.state.hypers[-1]
        self.state.rows.append({
            "epoch": self.epoch + 1, **{k: v for k, v in values.items() if v is not None}, "lr": lr,
            **({} if momentum is None else {"momentum": momentum}), "seconds": self.seconds,
            "images_per_second": self.images / self.seconds})
        self.write()

    def write(self) -> None:
        if self.path:
            write_text(self.path, self.state.frame().to_csv(index=False))
