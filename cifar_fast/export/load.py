"""Opens what a user named, without torch where that is possible."""

from __future__ import annotations

from pathlib import Path

from cifar_fast.export.base import BasePredictor
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import run_folder
from cifar_fast.export.onnx_predictor import open_file, open_run
from cifar_fast.export.tflite_predictor import open_file as open_tflite
from cifar_fast.utils.cores import BESIDE
from cifar_fast.utils.files import expand_path

OPEN = {".onnx": open_file, ".tflite": open_tflite}
"What opens a file on its own."


def load_model(
    path: str | Path,  # exports/NAME, a file in it, or a trusted .pkl
    device=None,  # None or "cpu": by model.onnx where the run has one; "auto" or another: by torch
    trust_pickle: bool = False,  # open a .pkl this once although its user does not trust it
    threads: int = BESIDE,  # of ONNX Runtime
) -> BasePredictor:
    "Open a run by its card and model, a .onnx or .tflite file or a .pkl. Raises CifarFastError."
    path = expand_path(path)
    if path.suffix in OPEN:
        if str(device or "cpu") not in ("cpu", "auto"):
            raise ExportError(f"{path} is run on the CPU; {path.parent} runs on {device}, in torch")
        return OPEN[path.suffix](path, threads)
    if path.suffix != ".pkl" and str(device or "cpu") == "cpu":
        folder = run_folder(path)
        if predictor := open_run(folder, read_card(folder), threads):
            return predictor
    from cifar_fast.export.predictor import load_export, load_pickle
    from cifar_fast.utils.device import use_device

    device = use_device(str(device or "auto"))
    return load_pickle(path, device, trust_pickle) if path.suffix == ".pkl" else load_export(path, device)
