"""startup: wall seconds of fresh processes, against python and the libraries they cannot do without.

Also asks a process that has predicted which libraries it holds: neither fastai nor albumentations is needed for it.
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

from cifar_fast.bench.made_up import random_images, untrained
from cifar_fast.bench.timing import Bar, alternate, compare, note, seconds
from cifar_fast.export.save import save_export

LISTING = Bar(must=0.5, goal=0.3, at_most=True, of="difference_s")
COLD = Bar(must=2.0, at_most=True, of="difference_s")
COLD_GOAL = Bar(goal=1.0, at_most=True, of="difference_s")
NEEDLESS = ("fastai", "albumentations")
SLOWEST = "import fastai.vision.all"
CLI = ("-m", "cifar_fast")


def measure(rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as tmp:
        answer = ("predict", *made_export(Path(tmp)))
        note("startup: --help and recipes")
        light = alternate({"python": side("-c", "pass"), "--help": side(*CLI, "--help"),
                           "recipes": side(*CLI, "recipes")}, rounds)
        note("startup: one image from a cold start")
        cold = alternate({"torch": side("-c", "import torch"), "timm": side("-c", "import torch, timm"),
                          "predict": side(*CLI, *answer)}, rounds)
        note(f"startup: {SLOWEST}, once")
        fastai = alternate({"torch": side("-c", "import torch"), "fastai": side("-c", SLOWEST)}, 1)
        held = needless(f"from cifar_fast.cli.main import main; assert main({list(answer)!r}) == 0")
    pair = partial(compare, unit="s")
    return {"comparisons": {
        **{name: pair(light[name], light["python"], bar=LISTING, against="python -c pass")
           for name in ("--help", "recipes")},
        "predict one image": pair(cold["predict"], cold["timm"], bar=COLD, against="import torch, timm"),
        "predict one image, goal": pair(cold["predict"], cold["torch"], bar=COLD_GOAL, against="import torch"),
        SLOWEST: pair(fastai["fastai"], fastai["torch"], bar=Bar(of="difference_s"), against="import torch"),
    }, "imported_by_predict": held,
        "notes": [f"imported by predict of {', '.join(NEEDLESS)}: {', '.join(held) or 'none, as it should be'}"]}


def made_export(folder: Path) -> tuple[str, str]:
    "An export with random weights and an image; returns the names of both."
    net = untrained(torch.device("cpu"))
    save_export(folder / "cold", net.model, net.card, pickle=False)
    Image.fromarray(random_images(1)[0]).save(folder / "cold.png")
    return str(folder / "cold"), str(folder / "cold.png")


def side(*args: str):
    return lambda: seconds(lambda: fresh(*args))


def fresh(*args: str) -> str:
    "Run Python in a process of its own, with this very package; returns its output. Raises RuntimeError."
    above = str(Path(__file__).parents[2])
    paths = os.pathsep.join(p for p in (above, os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        raise RuntimeError(f"python {' '.join(args)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def needless(code: str) -> list[str]:
    "Which of the `NEEDLESS` libraries a fresh process holds after `code`."
    ask = f"\nimport json, sys; print(json.dumps([n for n in {NEEDLESS!r} if n in sys.modules]))"
    return json.loads(fresh("-c", code + ask).splitlines()[-1])
