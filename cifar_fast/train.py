"""One run: seed → data → audit → fit → evaluate once on test → export."""

from __future__ import annotations

import importlib.util
import json
import logging
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientClip
from fastai.metrics import accuracy

from cifar_fast import __version__
from cifar_fast.callbacks.ema import EMA, EMAAccuracy
from cifar_fast.callbacks.history import History
from cifar_fast.callbacks.precision import choose_precision, precision_cbs
from cifar_fast.callbacks.stopping import KeepBest, Patience, Target
from cifar_fast.constraints import Audit, Budget, audit
from cifar_fast.data.block import make_dls, test_dl
from cifar_fast.data.sources import Source, load_source
from cifar_fast.device import choose_device
from cifar_fast.evaluation import scores
from cifar_fast.files import write_text
from cifar_fast.inference import files_of, probabilities, save_export
from cifar_fast.learner import cifar_learner
from cifar_fast.recipe import Recipe, check, describe
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


class Compiled(Callback):
    "torch.compile for training steps; validation stays eager, so that no other batch size compiles again."

    net = None

    def before_fit(self):
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on a CPU
        self.net = self.model
        self.net.compile(dynamic=False)

    def before_validate(self):
        torch.compiler.set_stance("force_eager")

    def after_validate(self):
        torch.compiler.set_stance("default")

    def after_fit(self):
        self.undo()

    def undo(self):
        torch.compiler.set_stance("default")
        if self.net is not None:
            self.net._compiled_call_impl = None  # there is no public way back from Module.compile


def prepare(recipe: Recipe) -> Run:
    "Load the data, build and audit the net. Raises RecipeError, DataError, BudgetError, ValueError with a way out."
    check(recipe)
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    source = load_source(recipe.data, seed=recipe.seed, bad=recipe.bad)
    seed_everything(recipe.seed)
    dls = make_dls(source, augment=recipe.augment, stats=recipe.stats, valid=recipe.valid, protocol=recipe.protocol,
                   bs=recipe.bs, drop_last=recipe.drop_last, workers=recipe.workers, seed=recipe.seed, device=device)
    learn = cifar_learner(dls, recipe.arch, loss_func=recipe.loss(), opt_func=recipe.opt, metrics=accuracy,
                          lr=recipe.lr, seed=recipe.seed)
    learn.recorder.train_metrics = True
    found = within_budget(learn.model, recipe)
    compiled = choose_compile(recipe.compile, device, recipe.epochs * len(dls.train))
    return Run(recipe, source, learn, found, device, precision, compiled)


PAYS_FROM = 2000
"Steps from which compiling (about half a minute) is worth its time."


def choose_compile(compile: str, device: torch.device, steps: int) -> bool:
    "Whether to torch.compile a run of `steps`. Raises ValueError for 'on' where it cannot be."
    # On a CPU torch writes C++ and calls a compiler; on CUDA it needs triton, which comes with torch on Linux only.
    can = (any(shutil.which(c) for c in ("c++", "g++", "clang++", "cl")) if device.type == "cpu" else
           device.type == "cuda" and importlib.util.find_spec("triton") is not None)
    if compile == "on" and not can:
        raise ValueError(f"compile=on: torch.compile finds no {'C++ compiler' if device.type == 'cpu' else 'triton'} "
                         f"for {device.type}; install one, or use compile=auto (slower without it, same recipe)")
    return compile == "on" or (compile == "auto" and can and steps >= PAYS_FROM)


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
    logger, learn.logger = learn.logger, (lambda *_: None)  # History prints the line of an epoch
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
    stem.mkdir(parents=True, exist_ok=True)
    print(headline(run), flush=True)
    write_text(stem / "recipe.json", json.dumps(describe(recipe), indent=1) + "\n")
    lr = recipe.lr
    if find_lr:
        found = find(run)
        lr = found["suggestions"]["valley"]["lr"]
        plots.save(plots.lr_find(found), stem / "lr_find.png")
        print(f"lr_find: valley {lr:.3g}, used as the peak learning rate")
    cbs = fit(run, lr, stem)
    history = next(cb for cb in cbs if isinstance(cb, History))
    card = evaluate_and_describe(replace(recipe, lr=lr), run, cbs, time.perf_counter() - began)
    save_export(stem, run.learn.model, card)
    plots.save(plots.history(history.frame(), title=recipe.name, target=0.85, valid_name=valid_name(recipe)),
               stem / "history.png")
    plots.save(plots.learning_rate(history.steps), stem / "learning_rate.png")
    plots.save(plots.confusion(card["test"]["confusion"], card["vocab"]), stem / "confusion.png")
    print(summary(card, stem))
    return card


def valid_name(recipe: Recipe) -> str:
    return "test" if recipe.protocol == "published" else "held-out"


def headline(run: Run) -> str:
    r, p = run.recipe, run.audit.profile
    held = {"published": "validates and selects on TEST, as published"}.get(
        r.protocol, f"{len(run.learn.dls.valid_ds):,} of train held out" if r.valid else "nothing held out")
    return (f"{r.name}: {r.arch} ({p.params:,} parameters, RF {p.receptive_field}) on {run.source.name} "
            f"({len(run.learn.dls.train_ds):,} pictures, {held}), {r.epochs} epochs, seed {r.seed}, "
            f"{run.device} {run.precision} {'compiled' if run.compiled else 'eager'}")


def evaluate_and_describe(recipe: Recipe, run: Run, cbs, seconds: float) -> dict:
    "The card of a finished run. The test set is met here, once, by the weights that are exported."
    learn, source = run.learn, run.source
    history = next(cb for cb in cbs if isinstance(cb, History))
    average = next((cb for cb in cbs if isinstance(cb, EMA)), None)
    mixer = next((cb for cb in cbs if hasattr(cb, "drawn")), None)
    frame = history.frame()
    dl = test_dl(learn.dls, source) if source.test else learn.dls.valid
    labels = source.test.labels if source.test else None
    if labels is None:
        raise ValueError(f"{source.name} has no test set to evaluate on")
    own, _ = probabilities(learn.model, (x.as_subclass(torch.Tensor) for x, *_ in dl), tta=False)
    if average:
        learn.model.load_state_dict(average.average.module.state_dict())
    plain, mirrored = probabilities(learn.model, (x.as_subclass(torch.Tensor) for x, *_ in dl), recipe.tta)
    test = scores(plain, labels, source.vocab)
    if recipe.tta:
        test["accuracy_tta"] = float((mirrored.argmax(1) == labels).mean())
    if average:
        test["accuracy_without_ema"] = float((own.argmax(1) == labels).mean())
    mean, std = recipe.stats or (source.mean, source.std)
    best = None
    if "valid_accuracy" in frame:
        row = frame.loc[frame["valid_accuracy"].idxmax()]
        best = {"epoch": int(row["epoch"]), "accuracy": float(row["valid_accuracy"]), "on": valid_name(recipe)}
    return {
        "name": recipe.name,
        "arch": recipe.arch,
        "vocab": list(source.vocab),
        "normalize": {"mean": [float(m) for m in mean], "std": [float(s) for s in std]},
        "test": test,
        "protocol": ("selected on test, as published" if recipe.protocol == "published" else
                     "test met once, by the last weights" if recipe.select == "last" else
                     "selected on a split of train, test met once"),
        "last_epoch": {k: float(v) for k, v in frame.iloc[-1].items()},
        "best_epoch": best,
        "epochs": len(frame),
        "seconds": {"training": float(frame["seconds"].sum()), "all": seconds,
                    "epoch": float(frame["seconds"].median())},
        "audit": run.audit.as_dict(),
        "waived": dict(recipe.waive),
        "mixed": dict(mixer.drawn) if mixer else None,
        "recipe": describe(recipe),
        "data": {"name": source.name, "fingerprint": source.fingerprint, "train": len(learn.dls.train_ds),
                 "test": len(labels), "skipped": len(source.skipped)},
        "machine": {"device": device_name(run.device), "precision": run.precision, "compiled": run.compiled,
                    "threads": torch.get_num_threads(), "platform": platform.platform()},
        "versions": {"cifar_fast": __version__, "python": platform.python_version(),
                     **{n: version(n) for n in ("torch", "torchvision", "fastai", "timm", "albumentations", "pandas",
                                                "numpy")}},
        "commit": git_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def git_commit() -> str | None:
    "The commit of the checkout this package runs from, with + where files differ from it; None outside of one."
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"], capture_output=True,
                                text=True, check=True).stdout.strip()
        dirty = subprocess.run(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", "."],
                               capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")


def summary(card: dict, stem: Path) -> str:
    "What a run says at its end: plain accuracy first, TTA beside it, and where things are."
    test, lines = card["test"], []
    if card["protocol"].startswith("selected on test"):
        last, best = card["last_epoch"], card["best_epoch"]
        lines.append(f"last epoch {last['valid_accuracy']:.2%}, best {best['accuracy']:.2%} (epoch {best['epoch']}, "
                     f"selected on test)")
    tta = f", TTA (image and mirror) {test['accuracy_tta']:.2%}" if "accuracy_tta" in test else ""
    raw = f", without EMA {test['accuracy_without_ema']:.2%}" if "accuracy_without_ema" in test else ""
    lines.append(f"test accuracy {test['accuracy']:.2%}{tta}{raw}  ({test['n']:,} pictures, "
                 f"{card['seconds']['training']:.0f} s of training)")
    weights, json_file, pkl = files_of(stem)
    lines.append(f"left: {weights}, {json_file.name}, {pkl.name}, plots and history in {stem}/")
    lines.append(f"next: python -m cifar_fast predict {stem} PICTURE…")
    return "\n".join(lines)
