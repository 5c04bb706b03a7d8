"""predict: images a second from decoded images to probabilities, against the bare net on normalised tensors.

The bare net gets its best batch size and memory format, found in the same run. The net is exports/final where that is,
else one with random weights, which takes as long.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

import torch

from cifar_fast.bench.made_up import random_images, untrained
from cifar_fast.bench.timing import Bar, alternate, compare, note, rate
from cifar_fast.export.card import NAME as CARD
from cifar_fast.export.predictor import Predictor, load_export
from cifar_fast.utils.device import choose_device

EXPORT = "exports/final"
IMAGES = 10_000
TRIED = 2_000  # images on which batch sizes are tried
SIZES = (100, 250, 500, 2000)
TRIALS = 3  # rounds of them at most
BAR = Bar(must=0.80, goal=0.95)


def measure(rounds: int) -> dict:
    exported, which = subject()
    images = random_images(IMAGES)
    x = exported.normalize(images)
    inputs = {"channels_last": x.contiguous(memory_format=torch.channels_last), "contiguous": x.contiguous()}
    tried = {(form, bs): rate(TRIED, partial(forward, exported.model, inputs[form][:TRIED], bs))
             for form in inputs for bs in SIZES}
    note(f"predict: {len(tried)} batch sizes and memory formats of the bare net")
    trials = alternate(tried, min(rounds, TRIALS))
    form, bs = max(trials, key=lambda k: median(trials[k]))
    note(f"predict: {IMAGES:,} images of {which}")
    values = alternate({"bare": rate(IMAGES, partial(forward, exported.model, inputs[form], bs)),
                        "predict": rate(IMAGES, partial(exported.predict, images))}, rounds)
    against = f"the bare net, {form}, {bs} at a time"
    rows = [{"batch size": b, **{f: round(median(trials[f, b])) for f in inputs}} for b in SIZES]
    return {"comparisons": {f"{IMAGES:,} images": compare(values["predict"], values["bare"], "images/s", BAR,
                                                               against)},
            "tables": {"images/s of the bare net": rows}, "notes": [f"{which}, on {exported.device}"]}


def subject() -> tuple[Predictor, str]:
    "The net to predict with, and its name."
    device = choose_device()
    if (Path(EXPORT) / CARD).is_file():
        return load_export(EXPORT, device), EXPORT
    return untrained(device), "random weights"


@torch.no_grad()
def forward(model: torch.nn.Module, x: torch.Tensor, bs: int) -> None:
    for part in x.split(bs):
        model(part)
