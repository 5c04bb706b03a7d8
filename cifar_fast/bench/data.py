"""data: images a second of the training DataLoader, against the bare Albumentations pipeline over the same arrays.

The bare loop gives uint8 images without batching, so the required ratio is for the DataLoader's uint8 batches; a second
ratio is for the float, normalised batches that the Learner gets. Both include starting and stopping worker processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable

import albumentations
import numpy as np
import torch
from fasttransform import Pipeline

from cifar_fast.bench.timing import Bar, alternate, compare, note, rate
from cifar_fast.bench.workload import random_source
from cifar_fast.data.block import make_dls
from cifar_fast.data.sources import Source
from cifar_fast.recipe import Recipe, load_recipe
from cifar_fast.utils.device import choose_device

PIPELINES = ("strided", "net", "sprint")  # few transforms, many transforms, vectorized
WORKERS = (0, 2)
IMAGES = 4096  # per pass
BAR = Bar(must=0.70, goal=0.90)


def measure(rounds: int) -> dict:
    source = random_source(IMAGES)
    comparisons = {}
    for name in PIPELINES:
        for workers in WORKERS:
            note(f"data: pipeline of {name}, {workers} workers")
            comparisons |= compared(load_recipe(name), source, workers, rounds)
    return {"comparisons": comparisons}


def compared(recipe: Recipe, source: Source, workers: int, rounds: int) -> dict:
    uint8, ready = loader(recipe, source, workers, False), loader(recipe, source, workers, True)
    seen = len(uint8) * recipe.bs if recipe.drop_last else len(source.train)
    images, augment = source.train.images[:seen], list(recipe.augment)
    values = alternate({"bare": rate(seen, lambda: bare(images, augment, workers)),
                        "uint8": rate(seen, lambda: consume(uint8)),
                        "ready": rate(seen, lambda: consume(ready))}, rounds)
    title, against = f"{recipe.name}, {workers} workers", "the bare Albumentations loop"
    return {f"{title}: uint8 batches": compare(values["uint8"], values["bare"], "images/s", BAR, against),
            f"{title}: normalised batches": compare(values["ready"], values["bare"], "images/s", against=against)}


def loader(recipe: Recipe, source: Source, workers: int, batch_tfms: bool):
    "The recipe's training DataLoader; without `batch_tfms` it gives uint8 batches on the CPU."
    device = choose_device(recipe.device) if batch_tfms else torch.device("cpu")
    dl = make_dls(source, augment=recipe.augment, stats=recipe.stats, bs=recipe.bs, drop_last=recipe.drop_last,
                  workers=workers, seed=recipe.seed, device=device).train
    if not batch_tfms:
        dl.after_batch = Pipeline([])
    return dl


def consume(dl: Iterable) -> None:
    for _ in dl:
        pass


def bare(images: np.ndarray, augment: list, workers: int) -> None:
    "Augment every image once: in this process, or split among `workers` processes."
    if not workers:
        return loop(images, augment)
    # Started as a DataLoader starts its workers on this platform.
    processes = [multiprocessing.Process(target=loop, args=(part, augment))
                 for part in np.array_split(images, workers)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    if any(p.exitcode for p in processes):
        raise RuntimeError(f"processes of the bare loop exited with {[p.exitcode for p in processes]}")


def loop(images: np.ndarray, augment: list) -> None:
    pipeline = albumentations.Compose(augment, is_check_shapes=False)  # as in our pipeline: there are no masks
    for image in images:
        pipeline(image=image)
