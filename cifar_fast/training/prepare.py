"""A recipe realised: data, an audited model, and how they are trained here (device, precision, memory format)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from fastai.metrics import accuracy

from cifar_fast.audit import Audit, Budget, audit
from cifar_fast.data.block import make_dls, split_rows
from cifar_fast.data.loaders import choose_workers
from cifar_fast.data.sources import Source, load_source
from cifar_fast.data.transforms import AlbumentationsTransform
from cifar_fast.models import require_model
from cifar_fast.recipe import Recipe, RecipeError, at_size, check, recipes_dir, require_validation
from cifar_fast.recipe.spec import SIDE
from cifar_fast.training.callbacks.compiling import choose_compile
from cifar_fast.training.callbacks.precision import choose_precision
from cifar_fast.training.learner import cifar_learner
from cifar_fast.training.memory_format import choose_memory_format, faster, time_formats
from cifar_fast.utils.device import choose_device
from cifar_fast.utils.environment import git_commit
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.seeds import rng_restored, seed_everything

LEAST_LEFT = 0.6
"Of a side after `augment`: training on crops a little smaller than the images that are classified is common."


class BudgetError(CifarFastError):
    "A model that breaks its recipe's budget."


@dataclass
class Run:
    "A recipe realised: everything built, nothing trained."

    recipe: Recipe
    source: Source
    learn: Any
    audit: Audit
    device: torch.device
    precision: str
    compiled: bool
    commit: str | None  # of the code, taken now since it may change during training
    memory_format: str | None = None  # None until `settle_memory_format` has timed both
    format_speeds: dict[str, float] = field(default_factory=dict)  # images per second of each, where they were timed


def prepare(
    recipe: Recipe,
    source: Source | None = None,  # the images, where they are not those that the recipe names
    typed: Sequence[str] = (),  # the `key=value` changes that the user gave: a `bs` among them is not adjusted
) -> Run:
    "Load the data, build and audit the model. Raises RecipeError, DataError, BudgetError, ModelError, AuditError."
    check(recipe)
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    require_model(recipe.arch)
    source = source or load_source(recipe.data, size=recipe.size, resize_mode=recipe.resize_mode, seed=recipe.seed,
                                   on_error=recipe.on_error, columns=recipe.columns)
    require_validation(recipe, bool(source.valid))
    if source.size != (recipe.size or SIDE):
        recipe = at_size(recipe, source.size)
    require_augment(recipe, source.size)
    if not any(change.startswith("bs=") for change in typed):
        recipe = with_fitting_bs(recipe, source)
    nbytes = sum(part.images.nbytes for part in source.splits.values())
    recipe = replace(recipe, workers=choose_workers(recipe.workers, device, recipe.augment, nbytes))
    seed_everything(recipe.seed)
    dls = make_dls(source, augment=recipe.augment, stats=recipe.stats, valid=recipe.valid,
                   validate_on=recipe.validate_on, bs=recipe.bs, drop_last=recipe.drop_last, workers=recipe.workers,
                   seed=recipe.seed, device=device)
    learn = cifar_learner(dls, recipe.arch, loss_func=recipe.loss(), opt_func=recipe.opt, metrics=accuracy,
                          lr=recipe.lr, seed=recipe.seed)
    result = within_budget(learn.model, recipe, source.size)
    steps = recipe.epochs * len(dls.train)
    compiled = choose_compile(recipe.compile, device, steps, learn.model)
    return Run(recipe, source, learn, result, device, precision, compiled, git_commit(recipes_dir()),
               choose_memory_format(recipe.channels_last, device, steps))


def with_fitting_bs(recipe: Recipe, source: Source) -> Recipe:
    "The recipe, with a smaller batch size where its own is more than the training images: four batches or more."
    images = len(split_rows(source, recipe.valid, recipe.validate_on, recipe.seed)[0])
    if recipe.bs <= images:
        return recipe
    bs = 2 ** int(math.log2(max(1, images // 4)))
    log_progress(f"bs={bs} instead of the recipe's {recipe.bs}: there are {images} training images; bs=… sets another")
    return replace(recipe, bs=bs)


def settle_memory_format(run: Run, resumed: dict | None = None) -> None:
    "Time both formats where the recipe leaves the choice to that; a resumed run keeps that of its state."
    if resumed and run.recipe.channels_last == "auto":
        run.memory_format, run.format_speeds = resumed["memory_format"], dict(resumed["format_speeds"])
    if run.memory_format is None:
        run.format_speeds = time_formats(run.learn.model, run.learn.dls.train, run.learn.loss_func, run.precision,
                                         run.device, run.compiled)
        run.memory_format = faster(run.format_speeds)


def require_augment(recipe: Recipe, size: int) -> None:
    "Raises RecipeError where `augment` cannot take images of this size, or leaves little of them: written for another."
    try:
        image = AlbumentationsTransform(train=recipe.augment).augment(np.zeros((size, size, 3), np.uint8))
    except Exception as e:  # Albumentations and OpenCV have errors of their own
        raise RecipeError(f"augment cannot be applied to images of {size}×{size}: {e}; its numbers of pixels must be "
                          f"for size={size}, or leave size= out of the recipe: they follow a size that is typed") from e
    if min(image.shape[:2]) < LEAST_LEFT * size:
        height, width = image.shape[:2]
        raise RecipeError(f"augment gives {height}×{width} of images of {size}×{size}; its numbers of pixels must be "
                          f"for size={size}, or leave size= out of the recipe: they follow a size that is typed")


def within_budget(model, recipe: Recipe, size: int) -> Audit:
    "The audit of the model. Raises BudgetError when it breaks a rule that the recipe does not waive."
    budget = recipe.budget or Budget()
    with rng_restored():
        result = audit(model, budget, (3, size, size))
    broken = result.failures(waive=recipe.waive)
    if broken:
        rules = "; ".join(f"{v.rule}: {v.found}, required {v.required}" for v in broken)
        raise BudgetError(f"{recipe.arch} breaks the budget of recipe {recipe.name!r} ({rules}). "
                          f"See python -m cifar_fast audit {recipe.arch}; a recipe may waive a rule by name with a "
                          f"reason: waive={{'{broken[0].rule}': 'why'}}")
    return result
