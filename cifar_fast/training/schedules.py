"""torch's learning-rate schedulers, by the names that `sched=` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import lr_scheduler

from cifar_fast.utils.errors import SettingError

__all__ = ["cosine", "cyclic", "one_cycle_torch", "plateau", "step", "warmup_cosine"]


@dataclass(frozen=True)
class Schedule:
    "How a run's learning rate is scheduled; `callbacks.scheduler.Scheduler` does it."

    make: Callable[[Any, int, int], Any]  # (torch optimizer, steps in all, steps per epoch) → torch scheduler
    every: str  # it is stepped after each "batch" or "epoch"
    metric: str | None = None  # for plateau: the column of `TrainState.rows` that it watches


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise SettingError(message)


def plateau(*, factor: float = 0.5, patience: int = 2, min_lr: float = 1e-6):
    "ReduceLROnPlateau on validation accuracy: times `factor` after more than `patience` epochs without a new best."
    _check(0 < factor < 1, f"factor={factor} must lie between 0 and 1")
    _check(patience >= 0, f"patience={patience} must be at least 0")
    return Schedule(
        lambda opt, total, steps: lr_scheduler.ReduceLROnPlateau(
            opt, mode="max", factor=factor, patience=patience, min_lr=min_lr),
        every="epoch", metric="valid_accuracy")


plateau.needs_valid = True  # it watches validation accuracy


def step(*, step_size: int = 8, gamma: float = 0.1):
    "StepLR: times `gamma` every `step_size` epochs."
    _check(step_size >= 1, f"step_size={step_size} must be at least 1")
    return Schedule(lambda opt, total, steps: lr_scheduler.StepLR(opt, step_size, gamma), every="epoch")


def cosine(*, eta_min: float = 1e-6):
    "CosineAnnealingLR from lr to `eta_min` over all epochs, stepped once an epoch."
    return Schedule(
        lambda opt, total, steps: lr_scheduler.CosineAnnealingLR(opt, total // steps, eta_min), every="epoch")


def warmup_cosine(*, warmup: float = 5, start_factor: float = 0.1, eta_min: float = 0.0):
    "Linear from `start_factor`·lr to lr over `warmup` epochs, then a cosine to `eta_min`, stepped once a batch."
    _check(warmup >= 0, f"warmup={warmup} must be at least 0")
    _check(0 < start_factor <= 1, f"start_factor={start_factor} must be above 0 and at most 1")

    def make(opt, total, steps):
        if not warmup:
            return lr_scheduler.CosineAnnealingLR(opt, total, eta_min)
        up = min(max(1, round(warmup * steps)), total - 1) if total > 1 else 1
        return lr_scheduler.SequentialLR(opt, [
            lr_scheduler.LinearLR(opt, start_factor, total_iters=up),
            lr_scheduler.CosineAnnealingLR(opt, max(1, total - up), eta_min)], milestones=[up])
    return Schedule(make, every="batch")


def cyclic(*, base_lr: float = 1e-4, max_lr: float = 1e-2, step_size_up: int = 4, step_size_down: int = 4,
           base_momentum: float = 0.8, max_momentum: float = 0.9):
    "CyclicLR (triangular, Smith 2017) between `base_lr` and `max_lr`, sizes in batches; sets lr and momentum itself."
    _check(min(step_size_up, step_size_down) >= 1, f"step sizes {step_size_up}, {step_size_down} must be at least 1")
    _check(0 < base_lr <= max_lr, f"base_lr={base_lr} must be above 0 and at most max_lr={max_lr}")
    return Schedule(
        lambda opt, total, steps: lr_scheduler.CyclicLR(
            opt, base_lr, max_lr, step_size_up, step_size_down, mode="triangular",
            base_momentum=base_momentum, max_momentum=max_momentum), every="batch")


def one_cycle_torch(*, max_lr: float = 0.05, pct_start: float = 0.3, div_factor: float = 25.0,
                    final_div_factor: float = 1e4, base_momentum: float = 0.85, max_momentum: float = 0.95):
    "torch's OneCycleLR over the whole run; sets lr and momentum itself. `fit=one_cycle` is fastai's own."
    _check(0 < pct_start < 1, f"pct_start={pct_start} must lie between 0 and 1")
    _check(max_lr > 0, f"max_lr={max_lr} must be above 0")

    def make(opt, total, steps):
        # torch's divides by the steps of the rise less one, which in a run of a few steps may be 0.
        rise = pct_start if pct_start * total != 1 else pct_start * (1 + 1e-9)
        return OneCycleToItsEnd(
            opt, max_lr, total_steps=total, pct_start=rise, div_factor=div_factor,
            final_div_factor=final_div_factor, base_momentum=base_momentum, max_momentum=max_momentum)
    return Schedule(make, every="batch")


class OneCycleToItsEnd(lr_scheduler.OneCycleLR):
    "torch's holds `total_steps` rates, the first of them set at its start, and raises when asked for one more."

    def step(self, epoch=None):
        if self.last_epoch + 1 < self.total_steps:
            super().step(epoch)


cyclic.sets_lr = one_cycle_torch.sets_lr = True  # the recipe's own lr has no effect with these
