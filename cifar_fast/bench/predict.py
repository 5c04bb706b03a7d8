"""predict: images a second from decoded images to probabilities, against the bare model on normalised tensors.

The bare model runs at its best batch size and memory format, determined in the same run. The model is exports/final if
it exists, else one with random weights, which is as fast.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

import torch

from cifar_fast.bench.synthetic import random_images, untrained
from cifar_fast.bench.timing import Bar, alternate, compare, note, rate
from cifar_fast.export.card import NAME as CARD
from cifar_fast.export.predictor import Predictor, load_export
from cifar_fast.utils.device import choose_device

EXPORT = "exports/final"
IMAGES = 10_000
TRIED = 2_000  # images to try each batch size on
SIZES = (100, 250, 500, 2000)
TRIALS = 3  # at most so many rounds of these
BAR = Bar(must=0.80, goal=0.95)


def measure(rounds: int) -> dict:
    exported, which = subject()
    images = random_images(IMAGES, exported.size)
    x = exported.normalize(images)
    inputs = {"channels_last": x.contiguous(memory_format=torch.channels_last), "contiguous": x.contiguous()}
    tried = {(form, bs): rate(TRIED, partial(forward, exported.model, inputs[form][:TRIED], bs))
             for form in inputs for bs in SIZES}
    note(f"predict: {len(tried)} batch sizes and memory formats of the bare model")
    trials = alternate(tried, min(rounds, TRIALS))
    form, bs = max(trials, key=lambda k: median(trials[k]))
    note(f"predict: {IMAGES:,} images of {which}")
    values = alternate({"bare": rate(IMAGES, partial(forward, exported.model, inputs[form], bs)),
                        "predict": rate(IMAGES, partial(exported.predict, images))}, rounds)
    against = f"the bare model, {form}, batches of {bs}"
    rows = [{"batch size": b, **{f: round(median(trials[f, b])) for f in inputs}} for b in SIZES]
    return {"comparisons": {f"{IMAGES:,} images": compare(values["predict"], values["bare"], "images/s", BAR,
                                                               against)},
            "tables": {"images/s of the bare model": rows}, "notes": [f"{which}, on {exported.device}"]}


def subject() -> tuple[Predictor, str]:
    "The model to predict with, and its name."
    device = choose_device()
    if (Path(EXPORT) / CARD).is_file():
        return load_export(EXPORT, device), EXPORT
    return untrained(device), "random weights"


@torch.no_grad()
def forward(model: torch.nn.Module, x: torch.Tensor, bs: int) -> None:
    for part in x.split(bs):
        model(part)
