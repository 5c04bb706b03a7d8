"""startup: wall seconds of commands in fresh processes, against python alone and the libraries that they need.

One image is predicted with model.onnx, and by torch without it. A recipe is timed from its command to the end of its
first step. Also lists which of `NEEDLESS` a process that predicts has imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from cifar_fast.bench.synthetic import random_images, untrained
from cifar_fast.bench.timing import Bar, alternate, compare, note, seconds
from cifar_fast.export.save import save_export
from cifar_fast.export.targets import onnx

LISTING = Bar(must=0.5, goal=0.3, at_most=True, of="difference_s")
COLD = Bar(must=1.0, goal=0.6, at_most=True, of="difference_s")
COLD_TORCH = Bar(must=2.0, at_most=True, of="difference_s")
NEEDLESS = ("torch", "timm", "fastai", "albumentations", "pandas", "matplotlib", "onnx")
FIRST_STEP = Bar(must=2.5, at_most=True)
SLOWEST = "import fastai.vision.all"
OPTIMIZER = "import torch; torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)"
"The least that any training imports: torch's optimizers import torch._dynamo when the first is built."
TRAIN = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *args: os._exit(0))
from cifar_fast.cli.main import main
main(sys.argv[1:])
sys.exit("the recipe ended without a step")
"""
CLI = ("-m", "cifar_fast")


def measure(rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as tmp:
        predict = ("predict", *untrained_export(Path(tmp)))
        by_torch = ("predict", *untrained_export(Path(tmp) / "torch", with_onnx=False))
        note("startup: --help and recipes")
        light = alternate({"python": side("-c", "pass"), "--help": side(*CLI, "--help"),
                           "recipes": side(*CLI, "recipes")}, rounds)
        note("startup: one image from a cold start")
        cold = alternate({"python": side("-c", "pass"), "predict": side(*CLI, *predict),
                          "timm": side("-c", "import torch, timm"), "by torch": side(*CLI, *by_torch)}, rounds)
        note(f"startup: {SLOWEST} and the first step of recipe final, once")
        recipe = ("recipe", "final", f"data={image_tree(Path(tmp) / 'data')}", f"exports={tmp}/exports", "device=cpu")
        slow = alternate({"torch": side("-c", "import torch"), "fastai": side("-c", SLOWEST),
                          "optimizer": side("-c", OPTIMIZER), "recipe": side("-c", TRAIN, *recipe)}, 1)
        imported = needless(f"from cifar_fast.cli.main import main; assert main({list(predict)!r}) == 0")
    pair = partial(compare, unit="s")
    return {"comparisons": {
        **{name: pair(light[name], light["python"], bar=LISTING, against="python -c pass")
           for name in ("--help", "recipes")},
        "predict one image": pair(cold["predict"], cold["python"], bar=COLD, against="python -c pass"),
        "the same against torch": pair(cold["predict"], cold["by torch"], against="predict without model.onnx"),
        "predict one image by torch": pair(cold["by torch"], cold["timm"], bar=COLD_TORCH,
                                           against="import torch, timm"),
        SLOWEST: pair(slow["fastai"], slow["torch"], bar=Bar(of="difference_s"), against="import torch"),
        "import torch and build an optimizer": pair(slow["optimizer"], slow["torch"], against="import torch"),
        "first step of recipe final": pair(slow["recipe"], slow["torch"], bar=FIRST_STEP, against="import torch"),
    }, "imported_by_predict": imported,
        "notes": [f"imported by predict of {', '.join(NEEDLESS)}: {', '.join(imported) or 'none, as required'}"]}


def untrained_export(folder: Path, with_onnx: bool = True) -> tuple[str, str]:
    "Save an export with random weights and an image; returns both paths."
    model = untrained(torch.device("cpu"))
    card = save_export(folder / "cold", model.model, model.card, pickle=False)
    if with_onnx:
        onnx.make(folder / "cold", card, model.model)
    Image.fromarray(random_images(1)[0]).save(folder / "cold.png")
    return str(folder / "cold"), str(folder / "cold.png")


def image_tree(folder: Path) -> Path:
    "A dataset of random images, two classes, one batch of recipe final in train; returns `folder`."
    images = iter(random_images(320))
    for split, count in (("train", 128), ("test", 32)):
        for name in ("a", "b"):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(next(images)).save(place / f"{i}.png")
    return folder


def side(*args: str):
    return lambda: seconds(lambda: fresh(*args))


def fresh(*args: str) -> str:
    "Run Python in a new process that imports this package; returns its stdout. Raises RuntimeError."
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    result = subprocess.run([sys.executable, *args], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": paths})
    if result.returncode:
        raise RuntimeError(f"python {' '.join(args)} exited with {result.returncode}: {result.stderr.strip()[-500:]}")
    return result.stdout


def needless(code: str) -> list[str]:
    "Which of the `NEEDLESS` libraries are imported in a fresh process after `code`."
    query = f"\nimport json, sys; print(json.dumps([n for n in {NEEDLESS!r} if n in sys.modules]))"
    return json.loads(fresh("-c", code + query).splitlines()[-1])
