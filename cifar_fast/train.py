"""One run: seed → data → audit → fit → evaluate once on test → export."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.imports import noop
from fastai.metrics import accuracy

from cifar_fast.archs import require_arch
from cifar_fast.callbacks.compiling import Compiled, choose_compile
from cifar_fast.callbacks.ema import EMAAccuracy
from cifar_fast.callbacks.history import History
from cifar_fast.callbacks.precision import choose_precision, precision_cbs
from cifar_fast.callbacks.stopping import KeepBest, Patience, Target
from cifar_fast.card import finished, git_commit, summary, valid_name
from cifar_fast.constraints import Audit, Budget, audit
from cifar_fast.data.block import make_dls
from cifar_fast.data.sources import Source, load_source
from cifar_fast.device import choose_device
from cifar_fast.files import write_text
from cifar_fast.inference import save_export
from cifar_fast.learner import cifar_learner
from cifar_fast.recipe import Recipe, check, describe
from cifar_fast.results import add, changes, draw_published, read, row
from cifar_fast.seeds import rng_restored, seed_everything


class BudgetError(Exception):
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
    source: Source | None = None,  # the pictures, where they are not those that the recipe names
) -> Run:
    "Load the data, build and audit the net. Raises RecipeError, DataError, BudgetError, ValueError with a way out."
    check(recipe)
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    require_arch(recipe.arch)
    source = source or load_source(recipe.data, seed=recipe.seed, bad=recipe.bad)
    seed_everything(recipe.seed)
    dls = make_dls(source, augment=recipe.augment, stats=recipe.stats, valid=recipe.valid, protocol=recipe.protocol,
                   bs=recipe.bs, drop_last=recipe.drop_last, workers=recipe.workers, seed=recipe.seed, device=device)
    learn = cifar_learner(dls, recipe.arch, loss_func=recipe.loss(), opt_func=recipe.opt, metrics=accuracy,
                          lr=recipe.lr, seed=recipe.seed)
    found = within_budget(learn.model, recipe)
    compiled = choose_compile(recipe.compile, device, recipe.epochs * len(dls.train))
    return Run(recipe, source, learn, found, device, precision, compiled, git_commit())


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


def training_callbacks(run: Run, folder: Path | None = None, log: bool = True) -> list[Callback]:
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
    if r.select == "best":
        cbs.append(KeepBest(folder and folder / "best.safetensors"))
    if run.compiled:
        cbs.append(Compiled())
    return [*cbs, History(folder and folder / "history.csv", log)]


def fit(run: Run, lr: float | None = None, folder: Path | None = None, log: bool = True) -> list[Callback]:
    "Train as the recipe says; returns the training callbacks, whatever happened undone what they had patched."
    learn, cbs = run.learn, training_callbacks(run, folder, log)
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]
    quiet = bars if not sys.stdout.isatty() else []  # bars redraw a line, which a file or pipe cannot
    logger, learn.logger = learn.logger, noop  # History prints the line of an epoch
    try:
        with learn.removed_cbs(quiet):
            run.recipe.fit(learn, run.recipe.epochs, lr or run.recipe.lr, cbs)
    finally:
        learn.logger = logger
        for cb in cbs:
            getattr(cb, "undo", lambda: None)()
        for cb in [c for c in learn.cbs if c in cbs]:  # an interrupt leaves them in the Learner
            learn.remove_cb(cb)
    return cbs


def train(recipe: Recipe, find_lr: bool = False) -> dict:
    "Run `recipe` and leave its exports; returns the card that went into the .json."
    from cifar_fast import plots
    from cifar_fast.lrfind import find

    began = time.perf_counter()
    run = prepare(recipe)
    stem = Path(recipe.exports).expanduser() / recipe.name
    # Until a run has ended its files stay apart from those of the export that may be there.
    running, table = stem / "running", stem.parent / "results.csv"
    if table.exists():
        read(table)  # what is wrong with it is better told before hours of training than after
    typed = changes(recipe, find_lr)  # now: the recipe's file may be edited while it trains
    shutil.rmtree(running, ignore_errors=True)
    running.mkdir(parents=True)
    print(headline(run), flush=True)
    write_text(running / "recipe.json", json.dumps(describe(recipe), indent=1) + "\n")
    lr = recipe.lr
    if find_lr:
        found = find(run)
        lr = found["suggestions"]["valley"]["lr"]
        plots.save(plots.lr_find(found), running / "lr_find.png")
        print(f"lr_find: valley {lr:.3g}, used as the peak learning rate")
    try:
        cbs = fit(run, lr, running)
    except BaseException:
        print(f"\nstopped; what the run had written is in {running}, nothing was exported", file=sys.stderr)
        raise
    history = next(cb for cb in cbs if isinstance(cb, History))
    card = finished(replace(recipe, lr=lr), run, cbs, time.perf_counter() - began)
    save_export(stem, run.learn.model, card)
    for path in running.iterdir():
        path.replace(stem / path.name)
    running.rmdir()
    plots.save(plots.history(history.frame(), title=recipe.name, target=0.85, valid_name=valid_name(recipe)),
               stem / "history.png")
    plots.save(plots.learning_rate(history.steps), stem / "learning_rate.png")
    if found := card["test"] or card["held_out"]:
        title = f"{recipe.name}, {card['on']}"
        plots.save(plots.confusion(found["confusion"], card["vocab"], title), stem / "confusion.png")
    draw_published(stem, recipe.name, card["recipe"], history.frame())
    print(summary(card, stem))
    add(row(card, typed), table, spare=stem / "row.csv")
    return card


def headline(run: Run) -> str:
    r, p = run.recipe, run.audit.profile
    held = {"published": "validates and selects on TEST, as published"}.get(
        r.protocol, f"{len(run.learn.dls.valid_ds):,} of train held out" if r.valid else "nothing held out")
    return (f"{r.name}: {r.arch} ({p.params:,} parameters, RF {p.receptive_field}) on {run.source.name} "
            f"({len(run.learn.dls.train_ds):,} pictures, {held}), {r.epochs} epochs, seed {r.seed}, "
            f"{run.device} {run.precision} {'compiled' if run.compiled else 'eager'}")
