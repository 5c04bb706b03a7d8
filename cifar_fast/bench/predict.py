"""predict: images a second to probabilities, from decoded images and from JPEG files.

Decoded images: against the bare torch model on normalised tensors, at its best batch size and memory format, which are
determined in the same run. Files: against decoding alone in as many threads. The model is exports/final if it exists,
by its model.onnx where it has one, and files by its model.int8.onnx too; else one with random weights, which is as
fast.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from cifar_fast.bench.synthetic import random_images, untrained
from cifar_fast.bench.timing import Bar, alternate, compare, note, rate
from cifar_fast.export.base import BasePredictor
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.files import INT8
from cifar_fast.export.load import load_model
from cifar_fast.export.predict_files import predict_files
from cifar_fast.utils.cores import CORES, DECODERS
from cifar_fast.utils.device import choose_device

EXPORT = "exports/final"
IMAGES = 10_000
FILES = 10_000
SIDE = (640, 480)  # pixels of a file
TRIED = 2_000  # images to try each batch size on
SIZES = (100, 250, 500, 2000)
TRIALS = 3  # at most so many rounds of these
BAR = Bar(must=0.80, goal=0.95)
FILES_BAR = Bar(must=0.80)


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
    files, note_of_files = of_files(beside_decoding(exported), rounds)
    rows = [{"batch size": b, **{f: round(median(trials[f, b])) for f in inputs}} for b in SIZES]
    return {"comparisons": {f"{IMAGES:,} images": compare(values["predict"], values["bare"], "images/s", BAR, against),
                            **files},
            "tables": {"images/s of the bare model": rows},
            "notes": [f"{which}, on {exported.device}, by {type(exported).__name__}", note_of_files]}


def subject() -> tuple[BasePredictor, str]:
    "The model to predict with, and its name."
    device = choose_device()
    if (Path(EXPORT) / CARD).is_file():
        return load_model(EXPORT, device, threads=CORES), EXPORT
    return untrained(device), "random weights"


def beside_decoding(exported: BasePredictor) -> dict[str, BasePredictor]:
    "The model as `predict` opens it for files, and in eight bits where there is such a file."
    if not (Path(EXPORT) / CARD).is_file():
        return {"": exported}
    small = Path(EXPORT) / INT8
    eight = {" in eight bits": load_model(small)} if small.is_file() else {}
    return {"": load_model(EXPORT, exported.device), **eight}


def of_files(models: dict[str, BasePredictor], rounds: int) -> tuple[dict, str]:
    "The comparisons with decoding alone, and what the files are."
    with tempfile.TemporaryDirectory() as tmp:
        paths = photographs(Path(tmp))
        note(f"predict: {FILES:,} files")
        sizes = sorted({path.stat().st_size for path in paths})
        values = alternate({"decoding": rate(FILES, partial(decode, models[""], paths)),
                            **{name: rate(FILES, partial(predict, model, paths)) for name, model in models.items()}},
                           rounds)
    against = f"decoding in {DECODERS} threads"
    return ({f"{FILES:,} files{name}": compare(values[name], values["decoding"], "images/s", FILES_BAR, against)
             for name in models},
            f"files: photographs of {SIDE[0]}×{SIDE[1]} as JPEG, {' and '.join(f'{size:,}' for size in sizes)} bytes")


def photographs(folder: Path) -> list[Path]:
    "FILES JPEGs: the two photographs that come with scikit-learn, over and over. Noise would decode slower."
    from sklearn.datasets import load_sample_images

    originals = [folder / f"photograph-{i}.jpg" for i in range(2)]
    for path, pixels in zip(originals, load_sample_images().images, strict=True):
        Image.fromarray(pixels).resize(SIDE, Image.Resampling.BICUBIC).save(path, quality=90)
    paths = [folder / f"{i}.jpg" for i in range(FILES)]
    for i, path in enumerate(paths):
        os.link(originals[i % 2], path)
    return paths


def predict(model: BasePredictor, paths: list[Path]) -> None:
    deque(predict_files(model, paths), maxlen=0)


def decode(exported: BasePredictor, paths: list[Path]) -> None:
    with ThreadPoolExecutor(DECODERS) as pool:
        deque(pool.map(exported.read, paths), maxlen=0)


@torch.no_grad()
def forward(model: torch.nn.Module, x: torch.Tensor, bs: int) -> None:
    for part in x.split(bs):
        model(part)
