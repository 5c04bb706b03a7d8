"""The dry run: the resolved recipe, its audit, one batch, the schedule, and a few timed steps."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from torch import nn

from cifar_fast.audit import audit_table
from cifar_fast.recipe import Recipe, describe
from cifar_fast.runs.data_lines import data_lines
from cifar_fast.runs.started import starts
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.callbacks.scheduler import Scheduler
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import Run, prepare, settle_memory_format
from cifar_fast.training.state import TrainState
from cifar_fast.utils.seeds import rng_restored
from cifar_fast.utils.terminal import curve


class _Given(Metric):
    "A metric that returns given numbers, one per epoch, for a schedule that watches a metric."

    name = "accuracy"

    def __init__(self, values):
        self.values = values

    def reset(self):
        pass

    def accumulate(self, learn):
        self.epoch = learn.epoch

    @property
    def value(self):
        return self.values[self.epoch] if hasattr(self, "epoch") else None


def preview(
    recipe: Recipe,
    steps: int,  # batches an epoch
    accuracies: list[float] | None = None,  # validation accuracy after each epoch, for a schedule that watches it
    each_epoch=None,  # called with the Learner after every epoch
) -> list[tuple[float, float | None]]:
    """(learning rate, momentum) of every step: the recipe's own optimizer, fit and schedule on a model of two weights.

    The real objects are run, so this is exactly what training will do.
    """
    batch = (torch.zeros(1, 1), torch.zeros(1, 1))
    dls = DataLoaders([batch] * steps, [batch])
    metrics = [_Given(accuracies or range(recipe.epochs))]  # rising, if none are given
    state = TrainState()
    cbs = [History(state)] + ([Scheduler(recipe.sched(), state)] if recipe.sched else [])
    if each_epoch:
        cbs.append(_EachEpoch(each_epoch))
    with rng_restored():
        learn = Learner(dls, nn.Linear(1, 1), loss_func=zero_loss, opt_func=recipe.opt, splitter=weight_and_bias,
                        metrics=metrics)
        learn.recorder.train_metrics = True
        learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
        learn.logger = lambda *_: None
        recipe.fit(learn, len(accuracies) if accuracies else recipe.epochs, recipe.lr, cbs)
    return state.hypers


def weight_and_bias(model: nn.Linear) -> list[list[nn.Parameter]]:
    "Two groups: some fits freeze the first one. The rates of the last one are recorded."
    return [[model.weight], [model.bias]]


def zero_loss(predicted: torch.Tensor, _) -> torch.Tensor:
    "A loss without a gradient: no learning rate is too large for it."
    return (predicted * 0).sum()


class _EachEpoch(Callback):
    order = 70

    def __init__(self, call):
        self.call = call

    def after_epoch(self):
        self.call(self.learn)


class _Timer(Callback):
    "Times `n` training steps after one that warms up, then ends the fit."

    order = 95
    run_valid = False

    def __init__(self, n: int):
        self.n, self.seconds, self.start = n, [], None

    def before_train(self):
        if self.start is not None:  # what is done between two epochs is no part of a step
            self.start = time.perf_counter()

    def after_batch(self):
        if torch.accelerator.is_available():  # a GPU's work is only queued so far
            torch.accelerator.synchronize()
        now = time.perf_counter()
        if self.start is not None:
            self.seconds.append(now - self.start)
        self.start = now
        if len(self.seconds) >= self.n:
            raise CancelFitException


def dry_run(recipe: Recipe, typed: Sequence[str] = ()) -> str:
    "What `recipe NAME --dry-run` prints. Trains a few steps only and writes nothing. `typed` as `prepare` takes it."
    run = prepare(recipe, typed=typed)
    settle_memory_format(run)
    x, y = run.learn.dls.train.one_batch()
    steps = len(run.learn.dls.train)
    text = [json.dumps(describe(run.recipe), indent=1), "", *data_lines(run), "", audit_table([run.audit])]
    if recipe.waive:
        text.append("waived: " + "; ".join(f"{k}: {v}" for k, v in recipe.waive.items()))
    text += ["", f"one batch: images {tuple(x.shape)} {x.dtype}, labels {tuple(y.shape)} {y.dtype}; "
             f"{steps} batches per epoch, {run.device} {run.precision} {run.memory_format}",
             *starts(run), "", lr_curve(recipe, steps), "", timing(run, steps)]
    return "\n".join(text)


def lr_curve(recipe: Recipe, steps: int) -> str:
    "The learning rate over the run, as text."
    # As many steps as the plot can show; a schedule that counts batches (cyclic) sees shorter epochs.
    steps = min(steps, max(8, 4000 // recipe.epochs))
    # A rising accuracy: a schedule that watches it then holds its rate.
    lrs = [lr for lr, _ in preview(recipe, steps, [(i + 1) / recipe.epochs for i in range(recipe.epochs)])]
    watches = getattr(getattr(recipe.sched, "func", None), "needs_valid", False)
    return curve([i / steps for i in range(len(lrs))], lrs,
                 "learning rate" + (" while validation accuracy keeps rising" if watches else ""), "epoch")


def timing(run: Run, steps: int) -> str:
    timed = step_seconds(run)
    if not timed:
        return f"the run has {steps * run.recipe.epochs} steps, too few to time"
    seconds = statistics.median(timed)  # one of the three may compile again, which takes many times as long
    total = seconds * steps * run.recipe.epochs
    return (f"{len(timed)} timed steps: {seconds * 1000:.0f} ms each (median), "
            f"{run.recipe.bs / seconds:.0f} images/s, about {total / 60:.1f} minutes of training in all")


def step_seconds(run: Run, n: int = 3) -> list[float]:
    "Seconds of each of `n` steps of `fit`, after one that warms up; a run may have fewer steps, or none to time."
    timer = _Timer(n)
    run.learn.add_cb(timer)
    fit(run)
    run.learn.remove_cb(timer)
    return timer.seconds
