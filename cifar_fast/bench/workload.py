"""For the benchmarks that train: a recipe on random images, and a training loop without fastai for comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch

from cifar_fast.bench.synthetic import MEAN, STD, random_images
from cifar_fast.data.cifar10 import CLASSES
from cifar_fast.data.sources import Arrays, Source
from cifar_fast.recipe import Recipe, load_recipe
from cifar_fast.training.batch_transforms import TORCH_FORMATS
from cifar_fast.training.callbacks.precision import autocast
from cifar_fast.training.prepare import Run, prepare, settle_memory_format

IMAGES = 50_000
"As many as CIFAR-10 has: whether compiling pays, for one, depends on their number."


def random_source(train: int, test: int = 500) -> Source:
    def part(n):
        return Arrays(random_images(n), np.arange(n) % len(CLASSES))

    return Source(name="random", train=part(train), test=part(test), vocab=CLASSES, mean=MEAN, std=STD,
                  fingerprint="", skipped=(), origin="random images")


def prepared(recipe: str | Recipe, images: int | None = None) -> Run:
    "A recipe on random images, ready to fit, with its memory format chosen."
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    run = prepare(recipe, random_source(IMAGES if images is None else images))
    settle_memory_format(run)
    return run


def forever(dl: Iterable) -> Iterator:
    "The batches of one epoch after another, without end."
    while True:
        yield from dl


class Batches(list):
    "Precomputed batches in place of a DataLoader."

    def to(self, device):
        "The batches stay on their device."


def batches(run: Run, count: int) -> Batches:
    "`count` training batches, augmented and normalised; from a small dataset over several epochs."
    return Batches(islice(forever(run.learn.dls.train), count))


class BareLoop:
    "A training loop without fastai, with torch's loss and optimizer as the recipe sets them."

    def __init__(
        self,
        model: torch.nn.Module,  # already on its device
        recipe: Recipe,  # gives loss, optimizer and learning rate
        precision: str = "fp32",
        memory_format: str = "contiguous",  # or "channels_last"
        compiled: bool = False,
    ):
        self.format = TORCH_FORMATS[memory_format]
        self.model = model.to(memory_format=self.format).train()
        device = next(model.parameters()).device
        self.autocast = partial(autocast, precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.loss = recipe.loss().func  # what fastai's loss wraps
        self.opt = recipe.opt(list(model.parameters()), lr=recipe.lr).opt
        if compiled:
            model.compile(dynamic=False)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        with self.autocast():
            out = self.model(x.contiguous(memory_format=self.format))
        self.scaler.scale(self.loss(out.float(), y)).backward()
        self.scaler.step(self.opt)
        self.scaler.update()
        self.opt.zero_grad()

    def steps(self, fed: Iterable[tuple[torch.Tensor, torch.Tensor]], count: int) -> None:
        "`count` steps over the batches `fed`, repeated as needed."
        for x, y in islice(cycle(fed), count):
            self.step(x, y)


def plain(fed: Batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    "The batches as plain tensors: fastai's types send every operation through Python once more."
    return [tuple(t.as_subclass(torch.Tensor) for t in batch) for batch in fed]


def steps_of(device: torch.device) -> int:
    "Steps per measurement: a few seconds of work on a CPU; more on a GPU, for a stable figure."
    return 6 if device.type == "cpu" else 100
