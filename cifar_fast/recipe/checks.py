"""Values and combinations that cannot work."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cifar_fast.recipe.overrides import settings
from cifar_fast.recipe.spec import Recipe, RecipeError, require_budget, require_value
from cifar_fast.utils.errors import FP16_ON_CPU

EXAMPLES = {"arch": "cifar_final", "name": "mine", "opt": "partial(sgd, momentum=0.9)",
            "fit": "partial(one_cycle, pct_start=0.2)", "sched": "cosine",
            "loss": "partial(cross_entropy, label_smoothing=0.1)", "mix": "partial(mixing, cutmix=0.5)",
            "resize": "partial(progressive, size=24)", "ema": "partial(ema, decay=0.999)"}
"How settings are written in a recipe file."

RESERVED = ("results.csv", "runs.csv", "sweeps", "lr_find")
"What lies beside the runs, so that no run may be called so."


def require_text(key: str, value: str) -> None:
    "Raises RecipeError where a name or path is not UTF-8, or begins with a home that does not exist."
    try:
        str(Path(value).expanduser()).encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{key}={ascii(value)[1:-1]}: the name is not UTF-8, which the files of a run are; rename "
                          f"it, or choose another") from None
    except RuntimeError:
        raise RecipeError(f"{key}={value}: there is no home folder {value.split('/')[0]}; write the whole "
                          f"path") from None


def check(recipe: Recipe) -> None:
    "Raise RecipeError for values and combinations that cannot work."
    r = recipe
    for f in fields(r):  # the command line has looked at its own values, a recipe file has not
        require_value(f, getattr(r, f.name))
    require_kinds(r)
    if not isinstance(r.augment, tuple | list):
        raise RecipeError(f"augment={r.augment}: expected a tuple of Albumentations transforms; of one it is written "
                          f"augment=(A.HorizontalFlip(p=0.5),)")
    require_stats(r.stats)
    require_tracker(r.track)
    if r.procs is not None and r.bs < r.procs:
        raise RecipeError(f"bs={r.bs} with procs={r.procs}: the batch is shared out, so every process needs at least "
                          f"one image of it; fewer processes, or a larger batch")
    if r.sync_bn and r.compile == "on":
        raise RecipeError("sync_bn=true compile=on: a compiled model cannot exchange statistics; leave out one of them")
    if not r.name or Path(r.name).name != r.name or r.name.startswith("."):
        raise RecipeError(f"name={r.name}: expected a plain name without a dot in front; exports=DIR chooses the "
                          f"folder")
    if r.name in RESERVED:
        raise RecipeError(f"name={r.name}: beside the runs there is something else of this name; choose another, "
                          f"name={Path(r.name).stem}-run")
    for key in ("data", "exports", "name", "init", "distill"):  # they go into the files of the run, which are UTF-8
        require_text(key, str(getattr(r, key) or ""))
    if r.channels_last not in (True, False, "auto"):
        raise RecipeError(f"channels_last={r.channels_last}: expected true, false or auto")
    sched = getattr(r.sched, "func", r.sched)
    fit = getattr(r.fit, "func", r.fit)
    if sched is not None and getattr(fit, "sets_lr", False):
        raise RecipeError(f"sched={sched.__name__} and fit={fit.__name__} would both set the learning rate; "
                          f"add fit=constant, or sched=none")
    if getattr(fit, "by_depth", False) and not r.init:
        raise RecipeError(f"fit={fit.__name__} trains a new head on trained weights first, and this recipe starts from "
                          f"random ones; add init=exports/NAME, or use fit=one_cycle")
    frozen = settings(r.fit).get("freeze_epochs", 0)
    if frozen >= r.epochs:
        raise RecipeError(f"fit.freeze_epochs={frozen}: the frozen epochs count within epochs={r.epochs}, and at least "
                          f"one must follow; give more epochs")
    if r.init_sha256 and not (r.init and re.fullmatch("[0-9a-f]{64}", r.init_sha256)):
        raise RecipeError(f"init_sha256={r.init_sha256}: expected the 64 hex digits of the weights that init= names")
    check_teacher(r)
    if r.views == 1 and r.views_weight != Recipe.views_weight:
        raise RecipeError(f"views.weight={r.views_weight:g} has no effect with one view of each image; add views=2")
    if r.prune and not r.init:
        raise RecipeError(f"prune={r.prune} removes channels of trained weights, and this recipe starts from random "
                          f"ones; add init=exports/NAME")
    if r.validate_on == "test" and r.valid:
        raise RecipeError(f"validate_on=test validates on the test set and holds nothing out; leave out "
                          f"valid={r.valid}")
    from cifar_fast.data.sources import may_have_valid

    if not may_have_valid(r.data):
        require_validation(r, False)
    loss = getattr(r.loss, "func", r.loss)
    if r.balance == "loss" and not getattr(loss, "takes_class_weights", False):
        raise RecipeError(f"balance=loss needs a loss that takes class weights, and {loss.__name__} does not; use "
                          f"loss=cross_entropy, or balance=sample")
    if r.mix is not None and not getattr(loss, "takes_soft_targets", False):
        raise RecipeError(f"mix={getattr(r.mix, 'func', r.mix).__name__} needs a loss that takes soft targets, and "
                          f"{loss.__name__} does not; use loss=cross_entropy, or mix=none")
    for key in ("loss", "sched", "mix", "resize", "ema"):  # these check their own arguments when they are called
        try:
            if (make := getattr(r, key)) is not None:
                make()
        except (ValueError, TypeError) as e:
            raise RecipeError(f"{key}: {e}") from None
    from torch import nn, zeros

    try:
        r.opt([nn.Parameter(zeros(2, 2, 1, 1))], lr=r.lr)
    except (ValueError, TypeError) as e:
        raise RecipeError(f"opt: {e}") from None
    if r.precision == "fp16" and r.device == "cpu":
        raise RecipeError(FP16_ON_CPU)


def require_kinds(r: Recipe) -> None:
    "Raise RecipeError where a recipe file gives a setting something of another kind than it takes."
    for key in ("arch", "name"):
        if not isinstance(value := getattr(r, key), str) or key == "arch" and not value:
            raise RecipeError(f"{key}={value!r}: expected a name in quotes, e.g. {key}=\"{EXAMPLES[key]}\"")
    require_budget(r.budget)
    for f in fields(r):
        value = getattr(r, f.name)
        if "from" not in f.metadata or value is None and f.default is None:
            continue
        function = value.func if isinstance(value, partial) else value
        if not callable(function) or not hasattr(function, "__name__"):  # an instance has none
            raise RecipeError(f"{f.name}={value!r}: expected a function or a class, not called, or a partial of one, "
                              f"e.g. {f.name}={EXAMPLES[f.name]}")
        if isinstance(value, partial) and value.args:
            raise RecipeError(f"{f.name}={value!r}: its arguments {', '.join(map(repr, value.args))} need names, as in "
                              f"{f.name}={EXAMPLES[f.name]}")


def require_stats(stats: tuple | None) -> None:
    "Raise RecipeError unless it is (mean, std), three finite numbers each, with a std above 0."
    if stats is None:
        return
    try:
        mean, std = ([float(x) for x in part] for part in stats)
        fits = len(mean) == len(std) == 3 and all(map(math.isfinite, mean + std)) and min(std) > 0
    except (TypeError, ValueError):
        fits = False
    if not fits or not all(isinstance(part, tuple | list) for part in (stats, *stats)):
        raise RecipeError(f"stats={stats}: expected ((mean, mean, mean), (std, std, std)) of red, green and blue in "
                          f"0 to 1, with each std above 0; None computes them from the training images")


def check_teacher(r: Recipe) -> None:
    "Raise RecipeError for settings of a teacher that cannot work."
    for key in ("alpha", "temperature", "cache", "repeat"):
        value = getattr(r, f"distill_{key}")
        if not r.distill and value != getattr(Recipe, f"distill_{key}"):
            raise RecipeError(f"distill.{key}={value} has no effect without a teacher; add distill=exports/NAME")
    if r.distill_repeat and not r.distill_cache:
        raise RecipeError(f"distill.repeat={r.distill_repeat} repeats images so that cached logits serve again, and "
                          f"none are cached; add distill.cache=yes")
    if r.distill_sha256 and not (r.distill and re.fullmatch("[0-9a-f]{64}(,[0-9a-f]{64})*", r.distill_sha256)):
        raise RecipeError(f"distill_sha256={r.distill_sha256}: expected the 64 hex digits of the weights that distill= "
                          f"names, of several separated by commas")


def require_tracker(track: str) -> None:
    "Raise RecipeError where the package of this name is not installed."
    try:
        track == "none" or version(track)  # not find_spec: wandb leaves folders of its own name behind
    except PackageNotFoundError:
        raise RecipeError(f"track={track} needs the package {track}, which is not installed here:\n"
                          f"python -m pip install {track}") from None


def require_validation(r: Recipe, own: bool) -> None:
    "Raise RecipeError where a setting needs validation; `own`: whether the data has a validation split of its own."
    if own or r.validate_on == "test" or r.valid > 0:
        return
    sched = getattr(r.sched, "func", r.sched)
    for on, what in ((getattr(sched, "needs_valid", False), f"sched={getattr(sched, '__name__', '')}"),
                     (r.patience, f"patience={r.patience}"), (r.target, f"target={r.target}"),
                     (r.keep == "best", "keep=best")):
        if on:
            raise RecipeError(f"{what} needs validation accuracy, and this recipe does not validate; "
                              f"add valid=0.1 to hold out a tenth of train")
