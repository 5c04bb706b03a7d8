"""lr_find without side effects: mock training at growing rates, after which everything is restored."""

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

from cifar_fast.recipe import settings
from cifar_fast.training.batch_transforms import batch_transforms
from cifar_fast.training.callbacks.precision import precision_cbs
from cifar_fast.training.distill import distillation_cbs
from cifar_fast.training.prepare import Run, settle_memory_format
from cifar_fast.training.views import views_cbs
from cifar_fast.utils.errors import SettingError
from cifar_fast.utils.ranks import here
from cifar_fast.utils.seeds import rng_restored

FEWEST = 100
"Steps of a search: with fewer, each rate is held for too short a time to show what it does."

PASSES = 3
"Averaged where batches are mixed, which changes their losses more than the rate does; each has other batches."

SMOOTHING = 0.05
"Standard deviation of the Gaussian that smooths the losses, as a fraction of the search."

STOP = 1.5
"The search ends where the last few losses are so many times the first ones."

RISE = 0.5
"The curve ends where it has risen again by this fraction of its fall: from there the model has diverged."

ONSET = 0.3
"The rules look from where the loss has fallen by so much of its whole fall: before, it falls too slowly, or is noise."

POINTS = 50
"Of the part that the rules look at: they count points, and must not depend on the number of steps."

MIN_FALL = 0.02
"A fall by less than this fraction of the first loss is noise."

SUGGESTIONS = {"valley": valley, "slide": slide, "minimum": minimum, "steep": steep}


class Search(Callback):
    "Sets a growing learning rate before each step and records the loss of each batch."

    order = 60
    run_valid = False

    def __init__(
        self,
        lrs: np.ndarray,
        frozen: bool = False,  # search for the head's rate, all else frozen, as `fits.fine_tune` starts
    ):
        self.lrs, self.frozen, self.losses = lrs, frozen, []

    def before_fit(self):
        if self.frozen:
            self.opt.freeze()

    def before_batch(self):
        lr = float(self.lrs[len(self.losses)])
        self.opt.set_hyper("lr", slice(lr) if self.frozen else lr)

    def after_batch(self):
        self.losses.append(float(self.loss.detach()))
        ratio = np.mean(self.losses[-5:]) / max(1.0, np.mean(self.losses[:5]))
        if not ratio < STOP or len(self.losses) == len(self.lrs):  # NaN is not less than anything
            raise CancelFitException

    def before_validate(self):
        raise CancelValidException


def find(run: Run, start_lr: float = 1e-6, end_lr: float = 10, num_it: int = FEWEST) -> dict:
    """Losses over a learning rate that grows from `start_lr` to `end_lr` in `num_it` steps, and four suggestions.

    {"lr", "loss": the smoothed curve; "suggestions": rule → {"lr", "loss"}; "recipe": the same of the recipe's own
    rate}. It trains in the recipe's precision and memory format, with its augmentation, clipping and batch transforms,
    at the resolution that training starts with: they change which rate is right. Weights, optimizer, DataLoader and
    every RNG are restored.
    """
    if num_it < FEWEST:
        raise SettingError(f"num_it={num_it}: a search takes at least {FEWEST} steps")
    settle_memory_format(run)
    learn, lrs, passes = run.learn, np.geomspace(start_lr, end_lr, num_it), []
    dl, ranks = learn.dls.train, here()
    if ranks.several:
        dl.shard(0, 1)  # the search is the first process's alone, on whole batches
    state, epoch, opt = deepcopy(learn.model.state_dict()), learn.dls.train.next_epoch, learn.opt
    try:
        with rng_restored():
            for i in range(PASSES if run.recipe.mix else 1):
                learn.model.load_state_dict(state)
                passes.append(search(run, lrs, i * (num_it // len(learn.dls.train) + 1)))
    finally:
        learn.model.load_state_dict(state)
        learn.opt = opt
        learn.model.zero_grad()
        learn.dls.train.set_epoch(epoch)
        if ranks.several:
            dl.shard(ranks.rank, ranks.count)
    steps = min(map(len, passes))
    lr, loss = curve(lrs, np.mean([losses[:steps] for losses in passes], axis=0))
    return {"lr": lr.tolist(), "loss": loss.tolist(), "suggestions": suggestions(lr, loss),
            "recipe": point(lr, loss, run.recipe.lr)}


def search(run: Run, lrs: np.ndarray, first_epoch: int) -> list[float]:
    "The loss of each step, until it diverges, on the batches of training from `first_epoch` on."
    learn, r = run.learn, run.recipe
    searching = Search(lrs, frozen=settings(r.fit).get("freeze_epochs", 0) > 0)
    cbs = [batch_transforms(r, len(run.source.vocab), run.memory_format, fraction=0.0), *distillation_cbs(run),
           *views_cbs(r), *precision_cbs(run.precision, run.device),
           *([GradientClip(r.clip)] if r.clip else []), searching]
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]
    learn.opt, learn.start_at = None, (first_epoch, 0)
    try:
        with learn.removed_cbs(bars), learn.added_cbs(cbs), learn.no_logging():
            learn.fit(first_epoch + len(lrs) // len(learn.dls.train) + 1, r.lr)
    finally:
        learn.start_at = (0, 0)
        if learn.opt:
            learn.opt.unfreeze()
        for cb in cbs:
            getattr(cb, "undo", noop)()
    return searching.losses


def curve(lrs: np.ndarray, losses) -> tuple[np.ndarray, np.ndarray]:
    "Rates and smoothed losses, up to where the loss has clearly risen again. Raises SettingError where it never falls."
    steps = len(losses) - 1 if len(losses) < len(lrs) else len(losses)  # the last of a search that diverged
    if steps < len(lrs) // 4:
        raise SettingError("the loss diverged within a few steps: start lower (--start …), or look at the images")
    loss = gaussian_filter1d(np.asarray(losses[:steps]), SMOOTHING * len(lrs), mode="nearest")
    lowest = np.minimum.accumulate(loss)
    fall = np.maximum.accumulate(np.maximum.accumulate(loss) - loss)  # down from an earlier loss: a rise is no fall
    if fall.max() < MIN_FALL * loss[0]:
        raise SettingError(f"the loss falls at no rate from {lrs[0]:.2g} to {lrs[steps - 1]:.2g}: search another range "
                           f"(--start …, --end …), or look at the images")
    risen = np.flatnonzero((loss - lowest > RISE * fall) & (fall > MIN_FALL * loss[0]))
    end = risen[0] + 1 if len(risen) else steps
    return lrs[:end], loss[:end]


def suggestions(lr: np.ndarray, loss: np.ndarray) -> dict[str, dict[str, float]]:
    "What fastai's four rules choose on the part of this curve where the loss falls."
    low = int(loss.argmin())
    start = np.flatnonzero(loss[:low + 1] >= loss[:low + 1].max() - ONSET * np.ptp(loss[:low + 1]))[-1]
    lrs = np.geomspace(lr[start], lr[-1], POINTS)
    losses = np.interp(np.log(lrs), np.log(lr), loss)
    # "minimum" suggests a tenth of the best rate: what it marks must be the curve there, not at the best rate.
    return {name: point(lr, loss, float(rule(torch.tensor(lrs), torch.tensor(losses), POINTS)[0]))
            for name, rule in SUGGESTIONS.items()}


def point(lr: np.ndarray, loss: np.ndarray, at: float) -> dict[str, float]:
    "A rate and the loss of the curve there."
    return {"lr": at, "loss": float(np.interp(math.log(at), np.log(lr), loss))}
