"""The figure of a training batch as the model gets it: drawn during a run, or later for a run without it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from cifar_fast.recipe import Recipe
from cifar_fast.training.batch_transforms import batch_transforms
from cifar_fast.training.callbacks.augmented_batch import Sample
from cifar_fast.training.callbacks.seeding import batch_seed
from cifar_fast.training.prepare import Run, prepare
from cifar_fast.utils.seeds import rng_restored

STEPS = 200
"Batches to look through for every kind of mixing."


def draw_train_batch(recipe: Recipe, path: Path) -> None:
    "The figure that a run of `recipe` draws in its first epoch, if every kind of mixing comes within STEPS batches."
    save_train_batch(sampled(prepare(recipe)).rows(), path)


def sampled(run: Run) -> Sample:
    "Images of the first batch of each kind that training would mix, without training."
    dl, sample = run.learn.dls.train, Sample(run.learn.dls)
    dl.shard(0, run.recipe.procs or 1)  # several processes: the images of the first one
    transforms = batch_transforms(run.recipe, len(run.source.vocab), "contiguous")
    transforms.setup(run.learn.model)
    steps = len(dl) * run.recipe.epochs
    dl.set_epoch(0)
    with rng_restored():
        for i, (x, y) in enumerate(islice(dl, STEPS)):
            torch.manual_seed(batch_seed(run.recipe.seed, 0, i, dl.place))
            sample.add(*transforms.apply(x, y, i / steps), transforms.kind)
            if sample.taken.keys() >= (transforms.kinds or {"none"}):
                break
    return sample


def save_train_batch(rows: list, path: Path) -> None:
    "A resumed run keeps the figure of its first epoch."
    from cifar_fast.reporting import plots

    if not path.exists():
        plots.save(plots.image_grid(rows), path)
