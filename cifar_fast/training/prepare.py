"""A recipe made real: data, audited net and callbacks, and the fit itself. `train.py` makes a kept run of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.imports import noop
from fastai.metrics import accuracy

from cifar_fast.audit import Audit, Budget, audit
from cifar_fast.data.block import make_dls
from cifar_fast.data.loaders import choose_workers
from cifar_fast.data.sources import Source, load_source
from cifar_fast.models import require_model
from cifar_fast.recipe import Recipe, check, recipes_dir
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.callbacks.compiling import Compiled, choose_compile
from cifar_fast.training.callbacks.ema import EMAAccuracy
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.callbacks.precision import choose_precision, precision_cbs
from cifar_fast.training.callbacks.progress import Progress
from cifar_fast.training.callbacks.stopping import KeepBest, Patience, Target
from cifar_fast.training.learner import cifar_learner
from cifar_fast.utils.device import choose_device
from cifar_fast.utils.environment import git_commit
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.seeds import rng_restored, seed_everything


class BudgetError(CifarFastError):
    "A net that breaks its recipe's budget."


@dataclass
class Run:
    "A recipe realised: everything made, nothing trained."

    recipe: Recipe
    source: Source
    learn: Any
    audit: Audit
    device: torch.device
    precision: str
    compiled: bool
    commit: str | None  # of the code, taken before hours of training in which it may move on


def prepare(
    recipe: Recipe,
    source: Source | None = None,  # the images, where they are not those that the recipe names
) -> Run:
    "Load the data, build and audit the net. Raises RecipeError, DataError, BudgetError, ModelError, AuditError."
    check(recipe)
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    require_model(recipe.arch)
    source = source or load_source(recipe.data, seed=recipe.seed, on_error=recipe.on_error)
    nbytes = sum(part.images.nbytes for part in (source.train, source.test) if part)
    recipe = replace(recipe, workers=choose_workers(recipe.workers, device, recipe.augment, nbytes))
    seed_everything(recipe.seed)
    dls = make_dls(source, augment=recipe.augment, stats=recipe.stats, valid=recipe.valid,
                   validate_on=recipe.validate_on, bs=recipe.bs, drop_last=recipe.drop_last, workers=recipe.workers,
                   seed=recipe.seed, device=device)
    learn = cifar_learner(dls, recipe.arch, loss_func=recipe.loss(), opt_func=recipe.opt, metrics=accuracy,
                          lr=recipe.lr, seed=recipe.seed)
    found = within_budget(learn.model, recipe)
    compiled = choose_compile(recipe.compile, device, recipe.epochs * len(dls.train), learn.model)
    return Run(recipe, source, learn, found, device, precision, compiled, git_commit(recipes_dir()))


def within_budget(model, recipe: Recipe) -> Audit:
    "The audit of the model. Raises BudgetError when it breaks a rule that the recipe does not waive."
    budget = recipe.budget or Budget()
    with rng_restored():
        found = audit(model, budget)
    broken = found.failures(waive=recipe.waive)
    if broken:
        rules = "; ".join(f"{v.rule}: {v.found}, required {v.required}" for v in broken)
        raise BudgetError(f"{recipe.arch} breaks the budget of recipe {recipe.name!r} ({rules}). "
                          f"See python -m cifar_fast audit {recipe.arch}; a recipe may waive a rule by name with a "
                          f"reason: waive={{'{broken[0].rule}': 'why'}}")
    return found


def training_callbacks(run: Run, folder: Path | None = None, progress: Progress | None = None,
                       checkpoint: Checkpoint | None = None, extra: Sequence[Callback] = ()) -> list[Callback]:
    "The callbacks that belong to training only: given to `fit`, so they are not exported."
    r, cbs = run.recipe, precision_cbs(run.precision, run.recipe.channels_last)
    if r.resize:
        cbs.append(r.resize())
    if r.mix:
        cbs.append(r.mix())
    if r.ema:
        cbs.append(average := r.ema())
        # With validation the average is measured beside the weights themselves, in the same pass.
        run.learn.metrics = [*[m for m in run.learn.metrics if not isinstance(m, EMAAccuracy)], EMAAccuracy(average)]
    if r.clip:
        cbs.append(GradientClip(r.clip))
    if r.sched:
        cbs.append(r.sched())
    if r.patience:
        cbs.append(Patience(r.patience))
    if r.target:
        cbs.append(Target(r.target))
    if r.keep == "best":
        cbs.append(KeepBest(folder and folder / "best.safetensors"))
    if run.compiled:
        cbs.append(Compiled())
    if checkpoint:
        cbs.append(checkpoint)
    return [*cbs, *extra, History(folder and folder / "history.csv"), *([progress] if progress else [])]


def fit(run: Run, lr: float | None = None, folder: Path | None = None, progress: Progress | None = None,
        checkpoint: Checkpoint | None = None, extra: Sequence[Callback] = ()) -> list[Callback]:
    "Train as the recipe says; returns the training callbacks, whatever happened undone what they had patched."
    learn, cbs = run.learn, training_callbacks(run, folder, progress, checkpoint, extra)
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]  # ours stands in for fastai's
    logger, learn.logger = learn.logger, noop
    try:
        with learn.removed_cbs(bars):
            run.recipe.fit(learn, run.recipe.epochs, lr or run.recipe.lr, cbs)
    finally:
        learn.logger, learn.begin_at = logger, (0, 0)
        for cb in cbs:
            getattr(cb, "undo", lambda: None)()
        for cb in [c for c in learn.cbs if c in cbs]:  # an interrupt leaves them in the Learner
            learn.remove_cb(cb)
    return cbs
