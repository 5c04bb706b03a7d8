"""lr_find that leaves no trace: mock training at growing rates, then everything as it was."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.callback.training import GradientClip
from fastai.imports import noop
from scipy.ndimage import gaussian_filter1d

from cifar_fast.training.batch_transforms import batch_transforms
from cifar_fast.training.callbacks.precision import precision_cbs
from cifar_fast.training.prepare import Run, settle_memory_format
from cifar_fast.utils.seeds import rng_restored

FEWEST = 100
"Steps of a pass: with fewer, each rate is held for too short a time to show what it does."

PASSES = 3
"Each from the same weights, on other batches; the losses are averaged, for that of a single batch is mostly noise."

POINTS = 100
"Of the smoothed curve that the rules see: they count points, and must not depend on the number of steps."

WIDTH = 0.03
"Standard deviation of the smoothing, as a fraction of the range of rates (on a log scale)."

STOP = 3
"A pass ends where the loss is so many times its first value."

SUGGESTIONS = {"valley": valley, "slide": slide, "minimum": minimum, "steep": steep}


class Search(Callback):
    "Sets a growing learning rate before each step and records the loss of each batch."

    order = 60
    run_valid = False

    def __init__(self, lrs: np.ndarray):
        self.lrs, self.losses = lrs, []

    def before_batch(self):
        self.opt.set_hyper("lr", float(self.lrs[len(self.losses)]))

    def after_batch(self):
        self.losses.append(float(self.loss.detach()))
        first = max(1.0, float(np.mean(self.losses[:5])))
        if not self.losses[-1] < STOP * first or len(self.losses) == len(self.lrs):  # NaN is not less than anything
            raise CancelFitException

    def before_validate(self):
        raise CancelValidException


def find(run: Run, start_lr: float = 1e-6, end_lr: float = 10, num_it: int = FEWEST) -> dict:
    """Losses over a learning rate that grows from `start_lr` to `end_lr` in `num_it` steps, and four suggestions.

    {"lr", "loss": the curve; "suggestions": rule → {"lr", "loss"}; "recipe_lr": the recipe's own}. It trains in the
    recipe's precision and memory format, with its augmentation, clipping and batch transforms at the resolution that
    training starts with: they change which rate is right. Weights, optimizer, DataLoader and every RNG are left as they
    were.
    """
    if num_it < FEWEST:
        raise ValueError(f"num_it={num_it}: a search takes at least {FEWEST} steps")
    settle_memory_format(run)
    learn, lrs = run.learn, np.geomspace(start_lr, end_lr, num_it)
    state, epoch, opt = deepcopy(learn.model.state_dict()), learn.dls.train.next_epoch, learn.opt
    try:
        with rng_restored():
            passes = []
            for i in range(PASSES):
                learn.model.load_state_dict(state)
                passes.append(search(run, lrs, first_epoch=i * (num_it // len(learn.dls.train) + 1)))
    finally:
        learn.model.load_state_dict(state)
        learn.opt = opt
        learn.model.zero_grad()
        learn.dls.train.set_epoch(epoch)
    lr, loss = averaged(lrs, passes)
    return {"lr": lr.tolist(), "loss": loss.tolist(), "suggestions": suggestions(lr, loss),
            "recipe_lr": run.recipe.lr}


def search(run: Run, lrs: np.ndarray, first_epoch: int) -> list[float]:
    "The loss of each step of one pass, until it diverges."
    learn, r, searching = run.learn, run.recipe, Search(lrs)
    cbs = [batch_transforms(r, learn.dls.c, run.memory_format, fraction=0.0), *precision_cbs(run.precision, run.device),
           *([GradientClip(r.clip)] if r.clip else []), searching]
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]
    learn.opt, learn.begin_at = None, (first_epoch, 0)
    try:
        with learn.removed_cbs(bars), learn.added_cbs(cbs), learn.no_logging():
            learn.fit(first_epoch + len(lrs) // len(learn.dls.train) + 1, r.lr)
    finally:
        learn.begin_at = (0, 0)
        for cb in cbs:
            getattr(cb, "undo", noop)()
    return searching.losses


def averaged(lrs: np.ndarray, passes: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    "`POINTS` rates, evenly spaced in log, and the smoothed mean of the losses there, up to where a pass diverged."
    steps = min(map(len, passes))
    if steps < len(lrs) // 4:
        raise ValueError("the loss diverged within a few steps: start lower (--start …), or look at the images")
    loss = np.mean([losses[:steps - 1] for losses in passes], axis=0)
    loss = gaussian_filter1d(loss, WIDTH * len(lrs), mode="nearest")
    at = np.geomspace(lrs[0], lrs[steps - 2], POINTS)
    return at, np.interp(np.log(at), np.log(lrs[:steps - 1]), loss)


def suggestions(lr: np.ndarray, loss: np.ndarray) -> dict[str, dict[str, float]]:
    "What fastai's four rules choose on this curve."
    lrs, losses, found = torch.tensor(lr), torch.tensor(loss), {}
    for name, rule in SUGGESTIONS.items():
        at = float(rule(lrs, losses, len(lr))[0])
        # "minimum" suggests a tenth of the best rate: what it marks must be the curve there, not at the best rate.
        found[name] = {"lr": at, "loss": float(np.interp(math.log(at), np.log(lr), loss))}
    return found
