"""A recipe realised: data, an audited model, and how they are trained here (device, precision, memory format)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.metrics import accuracy

from cifar_fast.audit import Audit, Budget, amount, audit
from cifar_fast.data.balance import class_weights
from cifar_fast.data.block import make_dls, split_rows
from cifar_fast.data.loaders import choose_workers
from cifar_fast.data.sources import Source, load_source
from cifar_fast.data.transforms import AlbumentationsTransform
from cifar_fast.export.card_parts import Start
from cifar_fast.models import create_model, require_model, scaled_widths
from cifar_fast.models.parts import stem_stages_head
from cifar_fast.recipe import Recipe, RecipeError, at_size, check, recipes_dir, require_validation, settings
from cifar_fast.recipe.spec import SIDE
from cifar_fast.training.callbacks.compiling import choose_compile
from cifar_fast.training.callbacks.ema import fitting_decay
from cifar_fast.training.callbacks.precision import choose_precision
from cifar_fast.training.distill import Teachers, checksums_of, open_teacher, read_teachers
from cifar_fast.training.init import Init, InitError, read_init, saw_held_out, seen_alike, take_weights
from cifar_fast.training.learner import cifar_learner
from cifar_fast.training.memory_format import choose_memory_format, faster, time_formats
from cifar_fast.training.parallel import require_device
from cifar_fast.training.prune import narrowed
from cifar_fast.utils.device import use_device
from cifar_fast.utils.environment import git_commit
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.memory import keep_large_blocks
from cifar_fast.utils.ranks import from_first, here
from cifar_fast.utils.seeds import rng_restored, seed_everything

DRAWS = 16
"Times that `augment` is tried on one image, to see whether all come out in one size."

LEAST_LEFT = 0.6
"Of a side after `augment`: training on crops a little smaller than the images that are classified is common."

FEWEST_BATCHES = 8
"Of an epoch: a recipe's batch size is lowered on images that would give fewer."

SMALLEST_BS = 8
"To which it is lowered at most, for batch norm's sake."



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
    stats: tuple  # (mean, std) that images are normalised with, in [0, 1] by channel
    start: Start | None  # the trained weights that it starts from
    valid_labels: np.ndarray  # (N,) of the images that are validated on, in their order; N is 0 where there are none
    memory_format: str | None = None  # None until `settle_memory_format` has timed both
    format_speeds: dict[str, float] = field(default_factory=dict)  # images per second of each, where they were timed
    widths: Sequence[int] | None = None  # of the model, where it was scaled to a budget, or pruned
    teachers: Teachers | None = None  # whose predictions are learned beside the labels
    tuning: bool = False  # one of many that are compared: it has no test set, and needs no files for deployment
    seen: np.ndarray | None = None  # digests of what the weights it starts from were trained on, in this size


def prepare(
    recipe: Recipe,
    source: Source | None = None,  # the images, where they are not those that the recipe names
    typed: Sequence[str] = (),  # the `key=value` changes that the user gave: they are not adjusted
    tuning: bool = False,  # see `Run`
) -> Run:
    """Load the data, build and audit the model.

    Raises RecipeError, SettingError, DataError, BudgetError, ModelError, AuditError, InitError, TeacherError.
    """
    check(recipe)
    device = use_device(recipe.device)
    if (ranks := here()).several:
        require_device(recipe.device)
        recipe = replace(recipe, procs=ranks.count)
        check(recipe)
    precision = choose_precision(recipe.precision, device)
    require_model(recipe.arch)
    if recipe.size:  # refused before images are decoded
        with torch.device("meta"):
            create_model(recipe.arch, 2, recipe.size)
    init = read_init(recipe) if recipe.init else None
    recipe = replace(recipe, init_sha256=init.sha256) if init else recipe
    init = narrowed(init, recipe.prune) if recipe.prune else init
    taught_by = read_teachers(recipe) if recipe.distill else []
    recipe = replace(recipe, distill_sha256=checksums_of(taught_by)) if taught_by else recipe
    source = source or load_images(recipe, init)
    if tuning:
        source = replace(source, test=None)
    require_validation(recipe, bool(source.valid))
    teachers = [open_teacher(weights, recipe, source, device, precision) for weights in taught_by]
    if source.size != (recipe.size or SIDE):
        recipe = at_size(recipe, source.size, any(change.startswith("resize.size=") for change in typed))
    require_augment(recipe, source.size)
    recipe = with_fitting_bs(recipe, source, typed)
    nbytes = sum(part.images.nbytes for part in source.splits.values())
    recipe = replace(recipe, workers=choose_workers(recipe.workers, device, recipe.augment, nbytes))
    stats = input_stats(recipe, init, source)
    if recipe.bs < ranks.count:
        raise RecipeError(f"bs={recipe.bs}: the batch is shared out among {ranks.count} processes, and each needs an "
                          f"image of it; bs={SMALLEST_BS * ranks.count}, or fewer processes")
    if device.type == "cpu":
        keep_large_blocks()
    seed_everything(recipe.seed)
    dls = make_dls(source, augment=recipe.augment, stats=stats, valid=recipe.valid,
                   validate_on=recipe.validate_on, bs=recipe.bs, drop_last=recipe.drop_last, workers=recipe.workers,
                   seed=recipe.seed, device=device, balanced=recipe.balance == "sample", views=recipe.views)
    if ranks.several:
        for dl in dls:
            dl.shard(ranks.rank, ranks.count)
    widths = fitting_widths(recipe, init, len(source.vocab), source.size)
    learn = cifar_learner(dls, recipe.arch, widths=widths,
                          loss_func=make_loss(recipe, train_labels(dls, source), len(source.vocab)),
                          opt_func=recipe.opt, metrics=accuracy, lr=recipe.lr, seed=recipe.seed,
                          repeat=recipe.distill_repeat, **splitter(recipe))
    start = None
    if init:
        start = replace(take_weights(learn.model, init, source.vocab),
                        saw_held_out=saw_held_out(init, recipe, source))
        if splitter(recipe):  # what the weights do not fit (a stem for another size) must not stay frozen
            learn.splitter = partial(stem_stages_head, new=frozenset(start.unfit))
    result = within_budget(learn.model, recipe, source.size)
    steps = recipe.epochs * len(dls.train)
    recipe = with_fitting_ema(recipe, steps, typed)
    compiled = not (ranks.several and recipe.sync_bn) and choose_compile(recipe.compile, device, steps, learn.model)
    return Run(recipe, source, learn, result, device, precision, compiled, git_commit(recipes_dir()), stats, start,
               valid_labels(dls, source), choose_memory_format(recipe.channels_last, device, steps), widths=widths,
               tuning=tuning, teachers=Teachers(teachers).normalized_by(*stats) if teachers else None,
               seen=init.trained if init and init.card and seen_alike(init.card, source) else None)


def load_images(recipe: Recipe, init: Init | None = None) -> Source:
    "The images that a recipe names, of its size, else of that which its weights were trained for. Raises DataError."
    size = recipe.size or (init.size if init else None)
    return load_source(recipe.data, size=size, resize_mode=recipe.resize_mode, seed=recipe.seed,
                       on_error=recipe.on_error, columns=recipe.columns)


def fitting_widths(recipe: Recipe, init: Init | None, classes: int, size: int) -> Sequence[int] | None:
    """Those of the trained weights to start from, else those that fit the budget; None for the model's own.

    A model keeps its own where they fit: with many classes, or large images, its classifier and stem have more
    parameters.
    """
    if init and init.widths:
        return init.widths
    if init and "parameters" in recipe.waive:
        return None
    if recipe.budget:
        widths = scaled_widths(recipe.arch, recipe.budget.max_params, classes, size)
        own = scaled_widths(recipe.arch, sys.maxsize, classes, size) if init else widths
        if widths != own:
            pruned = "add prune=0.5 instead, which removes channels of these weights; " if init.card else ""
            raise InitError(f"init={recipe.init} holds weights of {'-'.join(map(str, own))} channels, and with at most "
                            f"{recipe.budget.max_params:,} parameters the network has {'-'.join(map(str, widths))}; "
                            f"{pruned}give a larger budget.max_params=, or leave out init=")
        return widths
    if init or "parameters" in recipe.waive:
        return None
    most = Budget().max_params
    fitting, own = (scaled_widths(recipe.arch, n, classes, size) for n in (most, sys.maxsize))
    if fitting == own:
        return None
    log_progress(f"{recipe.arch} has {'-'.join(map(str, fitting))} channels instead of {'-'.join(map(str, own))}, so "
                 f"that with {classes:,} classes at {size} pixels it keeps to {most:,} parameters")
    return fitting


def input_stats(recipe: Recipe, init: Init | None, source: Source) -> tuple:
    """(mean, std) to normalise with: the recipe's, else those that the trained weights were made with, else the data's.

    A new dataset's own would shift what every trained layer gets.
    """
    if recipe.stats:
        return recipe.stats
    return (tuple(init.normalize.mean), tuple(init.normalize.std)) if init else (source.mean, source.std)


def splitter(recipe: Recipe) -> dict[str, Any]:
    "The Learner's argument where the recipe trains parts of the model at rates of their own."
    return {"splitter": stem_stages_head} if getattr(getattr(recipe.fit, "func", recipe.fit), "by_depth", False) else {}


def train_labels(dls, source: Source) -> np.ndarray:
    "(N,) of the images that are trained on, without those held out."
    return source.train.labels[np.array([int(i) for i in dls.train_ds.items])]


def valid_labels(dls, source: Source) -> np.ndarray:
    "(N,) of the images that are validated on, in their order; empty where there are none."
    return source.labels[np.array([int(i) for i in dls.valid_ds.items], dtype=np.int64)]


def make_loss(recipe: Recipe, labels: np.ndarray, classes: int):
    "The recipe's loss; with balance=loss it weights each class by how rare it is in `labels`."
    if recipe.balance != "loss":
        return recipe.loss()
    return recipe.loss(torch.from_numpy(class_weights(labels, classes)))


def with_fitting_bs(recipe: Recipe, source: Source, typed: Sequence[str] = ()) -> Recipe:
    "The recipe, with a smaller batch size where its own gives few batches of the training images, unless it is typed."
    images = len(split_rows(source, recipe.valid, recipe.validate_on, recipe.seed)[0])
    fitting = min(max(SMALLEST_BS, power_of_2(images / FEWEST_BATCHES)), power_of_2(images))
    if recipe.bs <= fitting or images >= FEWEST_BATCHES * recipe.bs or any(c.startswith("bs=") for c in typed):
        return recipe
    log_progress(f"bs={fitting} instead of the recipe's {recipe.bs}: there are {images:,} training images; bs=… sets "
                 f"another")
    return replace(recipe, bs=fitting)


def power_of_2(most: float) -> int:
    "The greatest one that is not more than `most`; 1 at least."
    return 2 ** int(math.log2(max(1, most)))


def with_fitting_ema(recipe: Recipe, steps: int, typed: Sequence[str] = ()) -> Recipe:
    "The recipe, with a smaller `ema.decay` where its own averages over much of the run, unless it is typed."
    given = settings(recipe.ema)
    if "decay" not in given:  # no EMA, or one of the recipe's own
        return recipe
    decay = fitting_decay(given["decay"], bool(given.get("warmup")), steps)
    if decay == given["decay"]:
        return recipe
    of_run = f"the run has {steps:,} steps"
    if any(change.startswith("ema.decay=") for change in typed):
        log_progress(f"ema.decay={given['decay']:g} averages much of the run into its weights, as {of_run}; "
                     f"ema.decay={decay:g} averages a tenth of it")
        return recipe
    log_progress(f"ema.decay={decay:g} instead of the recipe's {given['decay']:g}: {of_run}; ema.decay=… sets another")
    return replace(recipe, ema=partial(recipe.ema, decay=decay))


def settle_memory_format(run: Run, resumed: dict | None = None) -> None:
    "Time both formats where the recipe leaves the choice to that; a resumed run keeps that of its state."
    if resumed and run.recipe.channels_last == "auto":
        run.memory_format, run.format_speeds = resumed["memory_format"], dict(resumed["format_speeds"])
    if run.memory_format is None:
        run.format_speeds = time_formats(run.learn.model, run.learn.dls.train, run.learn.loss_func, run.precision,
                                         run.device, run.compiled)
        run.memory_format, run.format_speeds = from_first((faster(run.format_speeds), run.format_speeds))


def require_augment(recipe: Recipe, size: int) -> None:
    """Raises RecipeError where `augment` cannot take images of this size, or leaves little of them.

    Also where it holds what is no transform, or gives other than uint8 images (H, W, 3), or of more than one size.
    """
    if wrong := [t for t in recipe.augment if not hasattr(t, "available_keys")]:  # of every one that can be called
        raise RecipeError(f"augment holds {wrong[0]!r}, which is no Albumentations transform; a transform is written "
                          f"A.HorizontalFlip(p=0.5)")
    try:
        augment = AlbumentationsTransform(train=recipe.augment).augment
        drawn = [augment(np.zeros((size, size, 3), np.uint8)) for _ in range(DRAWS)]
    except Exception as e:  # Albumentations and OpenCV have errors of their own
        raise RecipeError(f"augment cannot be applied to images of {size}×{size}: {e}; its numbers of pixels must be "
                          f"for size={size}, or leave size= out of the recipe: they follow a size that is typed") from e
    if (wrong := next((i for i in drawn if i.dtype != np.uint8 or i.shape[2:] != (3,)), None)) is not None:
        raise RecipeError(f"augment gives {wrong.dtype} images of shape {wrong.shape}, expected uint8 (height, width, "
                          f"3): leave out what normalises or converts them (Normalize, ToFloat, ToTensorV2), which "
                          f"comes after it by itself")
    if len(sizes := sorted({i.shape[:2] for i in drawn})) > 1:
        raise RecipeError(f"augment gives images of several sizes ({', '.join(f'{h}×{w}' for h, w in sizes)}), and a "
                          f"batch needs one: give its crops p=1, or end with A.Resize({size}, {size})")
    height, width = sizes[0]
    if min(height, width) < LEAST_LEFT * size:
        raise RecipeError(f"augment gives {height}×{width} of images of {size}×{size}; its numbers of pixels must be "
                          f"for size={size}, or leave size= out of the recipe: they follow a size that is typed")


def within_budget(model, recipe: Recipe, size: int) -> Audit:
    "The audit of the model. Raises BudgetError when it breaks a rule that the recipe does not waive."
    budget = recipe.budget or Budget()
    with rng_restored():
        result = audit(model, budget, (3, size, size))
    broken = result.failures(waive=recipe.waive)
    if broken:
        rules = "; ".join(f"{v.rule}: {amount(v.rule, v.found)}, required {amount(v.rule, v.required)}" for v in broken)
        raise BudgetError(f"{recipe.arch} breaks the budget of {recipe.name} ({rules}). See python -m "
                          f"cifar_fast audit {recipe.arch}. {' '.join(v.allowing for v in broken)} allows it; a recipe "
                          f"file may also waive a rule by name with a reason: waive={{'{broken[0].rule}': 'why'}}")
    return result
