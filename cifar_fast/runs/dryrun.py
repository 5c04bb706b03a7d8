"""Look before you train: the resolved recipe, its audit, one batch, the schedule, and three timed steps."""

from __future__ import annotations

import json
import time

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from torch import nn

from cifar_fast.audit import audit_table
from cifar_fast.recipe import Recipe, describe
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.prepare import Run, fit, prepare
from cifar_fast.utils.seeds import rng_restored
from cifar_fast.utils.terminal import curve


class _Fed(Metric):
    "A metric that returns given numbers, one an epoch: what a schedule that watches a metric is shown."

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
    """(learning rate, momentum) of every step: the recipe's own optimizer, fit and schedule on a net of one weight.

    The real objects run, so this is what training will do and no second description of it.
    """
    batch = (torch.zeros(1, 1), torch.zeros(1, 1))
    dls = DataLoaders([batch] * steps, [batch])
    metrics = [_Fed(accuracies or range(recipe.epochs))]  # ever rising, if none are given
    cbs = [History()] + ([recipe.sched()] if recipe.sched else [])
    if each_epoch:
        cbs.append(_EachEpoch(each_epoch))
    with rng_restored():
        learn = Learner(dls, nn.Linear(1, 1), loss_func=still, opt_func=recipe.opt, metrics=metrics)
        learn.recorder.train_metrics = True
        learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
        learn.logger = lambda *_: None
        recipe.fit(learn, len(accuracies) if accuracies else recipe.epochs, recipe.lr, cbs)
    return cbs[0].steps


def still(predicted: torch.Tensor, _) -> torch.Tensor:
    "A loss that moves no weight: a rate of any size ends well."
    return (predicted * 0).sum()


class _EachEpoch(Callback):
    order = 70

    def __init__(self, call):
        self.call = call

    def after_epoch(self):
        self.call(self.learn)


class _Timer(Callback):
    "Times `n` steps after one that warms up, then ends the fit."

    order = 95

    def __init__(self, n: int):
        self.n, self.marks = n, []

    def after_batch(self):
        if torch.accelerator.is_available():  # a GPU's work is only queued by now
            torch.accelerator.synchronize()
        self.marks.append(time.perf_counter())
        if len(self.marks) > self.n:
            raise CancelFitException


def dry_run(recipe: Recipe) -> str:
    "What `recipe NAME --dry-run` prints. Nothing is trained for longer than four steps, nothing is written."
    run = prepare(recipe)
    x, y = run.learn.dls.train.one_batch()
    steps = len(run.learn.dls.train)
    text = [json.dumps(describe(recipe), indent=1), "", audit_table([run.audit])]
    if recipe.waive:
        text.append("waived: " + "; ".join(f"{k}: {v}" for k, v in recipe.waive.items()))
    text += ["", f"one batch: images {tuple(x.shape)} {x.dtype}, labels {tuple(y.shape)} {y.dtype}; "
             f"{steps} batches an epoch, {run.device} {run.precision}",
             "", lr_curve(recipe, steps), "", timing(run, steps)]
    return "\n".join(text)


def lr_curve(recipe: Recipe, steps: int) -> str:
    "The learning rate over the run, drawn in characters."
    # As many steps as the image can show; what counts batches (cyclic) is drawn as it comes, an epoch cut short.
    steps = min(steps, max(8, 4000 // recipe.epochs))
    # A rising accuracy: a schedule that watches it then holds its rate.
    lrs = [lr for lr, _ in preview(recipe, steps, [(i + 1) / recipe.epochs for i in range(recipe.epochs)])]
    watches = getattr(getattr(recipe.sched, "func", None), "needs_valid", False)
    return curve([i / steps for i in range(len(lrs))], lrs,
                 "learning rate" + (" while validation accuracy keeps rising" if watches else ""), "epoch")


def timing(run: Run, steps: int) -> str:
    seconds, timed = seconds_a_step(run)
    total = seconds * steps * run.recipe.epochs
    return (f"{timed} timed steps: {seconds * 1000:.0f} ms each, "
            f"{run.recipe.bs / seconds:.0f} images/s, about {total / 60:.1f} minutes of training in all")


def seconds_a_step(run: Run, n: int = 3) -> tuple[float, int]:
    "Mean seconds of `n` steps of `fit` after one that warms up, and how many there were (a run may have fewer)."
    timer = _Timer(n)
    run.learn.add_cb(timer)
    fit(run)
    run.learn.remove_cb(timer)
    timed = len(timer.marks) - 1
    return (timer.marks[-1] - timer.marks[0]) / timed if timed > 0 else float("nan"), timed
