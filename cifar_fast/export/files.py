"""The files of a saved run. torch is not imported here: predict and serve need none where model.onnx is there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cifar_fast.export.card_format import NAME
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.text import printable

WEIGHTS, CONFIG, LEARNER, RECIPE, SOURCE, ONNX, INT8 = (
    "model.safetensors", "config.json", "learner.pkl", "recipe.json", "recipe.py", "model.onnx", "model.int8.onnx")
"""The weights and their description as timm and the Hub name them; fastai's Learner; the recipe, and its own file; the
folded model for ONNX Runtime, and the same in int8."""

TFLITE = ("model.tflite", "model.int8.tflite", "model.micro.tflite")
"Those for LiteRT and for microcontrollers."

EXPORTED = (".onnx", ".tflite", ".pkl")
"Endings of what a run was exported to, which may predict differently than its weights."

MODEL_BYTES = 2**29  # of weights, a Learner or a graph: 134 million parameters, where the budget allows 200,000


def run_folder(path: str | Path) -> Path:
    "exports/final of `exports/final`, or of a file in it."
    path = expand_path(path)
    files = (NAME, WEIGHTS, CONFIG, LEARNER, ONNX, INT8, *TFLITE)
    return path.parent if path.name in files else path


def stale_name(name: str) -> str:
    "`final.stale.html`: what a file is renamed to whose predictions are no longer those of its run."
    path = Path(name)
    return f"{path.stem}.stale{path.suffix}"


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def short(e: BaseException) -> str:
    return f"{type(e).__name__}: {printable(' '.join(str(e).split()))[:200]}"
