"""A training batch as the model gets it, drawn: by a run as it trains, or for a run that left none."""

from __future__ import annotations

from pathlib import Path

from fastai.callback.progress import ProgressCallback

from cifar_fast.recipe import Recipe
from cifar_fast.training.callbacks.augmented_batch import AugmentedBatch
from cifar_fast.training.prepare import prepare, training_callbacks


def draw_train_batch(recipe: Recipe, path: Path) -> None:
    "The sheet of what the net is fed, as a run of `recipe` would leave it: by training until every kind has come."
    run = prepare(recipe)
    cbs = [*training_callbacks(run), AugmentedBatch(path, save_train_batch, stop=True)]
    bars = [cb for cb in run.learn.cbs if isinstance(cb, ProgressCallback)]
    with run.learn.removed_cbs(bars), run.learn.no_logging():
        recipe.fit(run.learn, recipe.epochs, recipe.lr, cbs)


def save_train_batch(rows: list, path: Path) -> None:
    from cifar_fast.reporting import plots

    plots.save(plots.image_grid(rows), path)
