"""A prepared run, trained: its callbacks, the fit, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.imports import noop
from fastai.learner import Metric
from torch import nn

from cifar_fast.data.balance import unequal
from cifar_fast.training.batch_transforms import BatchTransforms, batch_transforms
from cifar_fast.training.callbacks.augmented_batch import AugmentedBatch
from cifar_fast.training.callbacks.batch_norm import YOUNG, RecomputedBatchNorm
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.callbacks.compiling import Compiled
from cifar_fast.training.callbacks.ema import EMA, EMAAccuracy
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.callbacks.precision import autocast, precision_cbs
from cifar_fast.training.callbacks.progress import Progress
from cifar_fast.training.callbacks.scheduler import Scheduler
from cifar_fast.training.callbacks.stopping import KeepBest, Patience, Target
from cifar_fast.training.callbacks.tracking import Tracker
from cifar_fast.training.distill import TeacherLoss, distillation_cbs
from cifar_fast.training.metrics import BalancedAccuracy
from cifar_fast.training.prepare import Run, settle_memory_format
from cifar_fast.training.state import TrainState
from cifar_fast.training.views import views_cbs
from cifar_fast.utils.ranks import here


class Fitted(NamedTuple):
    "What a fit gives, beside the weights in its Learner."

    state: TrainState
    ema: nn.Module | None  # the model with averaged weights, where the recipe averages


def fit(
    run: Run,
    lr: float | None = None,  # instead of the recipe's
    *,
    folder: Path | None = None,  # for history.csv and the best weights
    progress: Callable[[TrainState, str], Progress] | None = None,  # given the state and the name of what validates
    checkpoint: Checkpoint | None = None,
    draw: Callable[[list], None] | None = None,  # given rows of training images, see `AugmentedBatch`
    tracker: Tracker | None = None,  # open
) -> Fitted:
    "Train by the recipe. Patches are undone even after an error."
    settle_memory_format(run)
    learn, state = run.learn, TrainState(memory_format=run.memory_format, format_speeds=run.format_speeds)
    average = run.recipe.ema() if run.recipe.ema else None
    cbs = callbacks(run, state, average, folder, progress, checkpoint, draw)
    if tracker:
        tracker.state = state
        cbs.append(tracker)
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]  # ours replaces fastai's
    logger, metrics, learn.logger = learn.logger, list(learn.metrics), noop
    learn.metrics = [*metrics, *more_metrics(run, average)]
    try:
        with learn.removed_cbs(bars):
            run.recipe.fit(learn, run.recipe.epochs, lr or run.recipe.lr, cbs)
    finally:
        learn.logger, learn.metrics, learn.start_at = logger, metrics, (0, 0)
        for cb in cbs:
            getattr(cb, "undo", noop)()
        for cb in [c for c in learn.cbs if c in cbs]:  # an interrupt leaves them in the Learner
            learn.remove_cb(cb)
    return Fitted(state, average and average.module)


def more_metrics(run: Run, average: EMA | None) -> list[Metric]:
    "Of the averaged weights, measured beside the trained ones on the same batches; and where classes are unequal."
    ema = [EMAAccuracy(average, partial(autocast, run.precision, run.device))] if average else []
    taught = [TeacherLoss()] if run.teachers else []
    if not unequal(np.bincount(run.valid_labels)):
        return [*ema, *taught]
    watched = {"predicted": lambda _: ema[0].predicted, "name": "ema_balanced_accuracy"} if ema else {}
    return [*ema, *taught, BalancedAccuracy(len(run.source.vocab), **watched)]


def callbacks(run: Run, state: TrainState, average: EMA | None, folder: Path | None,
              progress: Callable[[TrainState, str], Progress] | None, checkpoint: Checkpoint | None,
              draw: Callable[[list], None] | None) -> list[Callback]:
    "Those that belong to training only: given to the fit, so they are not exported."
    r, transforms = run.recipe, batch_transforms(run.recipe, len(run.source.vocab), run.memory_format)
    history = History(state, transforms, folder and folder / "history.csv")
    kept = bool(folder or checkpoint)  # a run, in whichever of its processes; a benchmark has neither
    cbs = [transforms, *distillation_cbs(run, keeps=kept), *views_cbs(r), *precision_cbs(run.precision, run.device),
           history]
    parallel = with_others(run, transforms, history, checkpoint)
    cbs += [parallel] if parallel else []
    if average:
        cbs.append(average)
    if r.clip:
        cbs.append(GradientClip(r.clip))
    if r.epochs * len(run.learn.dls.train) < YOUNG:
        cbs.append(recomputed := RecomputedBatchNorm(transforms, partial(autocast, run.precision, run.device), average))
        if parallel:
            recomputed.share = parallel.average
    if r.sched:
        cbs.append(Scheduler(r.sched(), state))
    if r.patience:
        cbs.append(Patience(state, r.patience))
    if r.target:
        cbs.append(Target(state, r.target))
    if r.keep == "best":
        cbs.append(KeepBest(state, average, folder and folder / "best.safetensors"))
    if run.compiled:
        cbs.append(Compiled())
    if checkpoint:
        checkpoint.history = history
        cbs.append(checkpoint)
    if draw:
        cbs.append(AugmentedBatch(transforms, draw))
    if progress:
        cbs.append(progress(state, "test" if r.validate_on == "test" else "held-out"))
    return cbs


def with_others(run: Run, transforms: BatchTransforms, history: History, checkpoint: Checkpoint | None):
    "The callback that trains together with other processes, connected to what needs it; None where there are none."
    if not here().several:
        return None
    from cifar_fast.training.callbacks.parallel import Parallel

    parallel = history.parallel = Parallel(transforms, run.recipe.sync_bn)
    parallel.history, parallel.checkpoint = history, checkpoint
    if checkpoint:
        checkpoint.parallel = parallel
    return parallel
