"""What a bulk prediction was asked for, and how each of its processes opens the model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from cifar_fast.export.base import BasePredictor
from cifar_fast.export.files import EXPORTED, WEIGHTS, file_sha256, run_folder
from cifar_fast.export.load import load_model
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path


class BulkError(CifarFastError):
    "A bulk prediction that cannot begin or go on; the message says why and what to do."


@dataclass(frozen=True)
class Job:
    "A model, and what is written of each image."

    export: str  # exports/NAME, an .onnx file or a .pkl
    device: str | None = None  # as `load_model` takes it
    trust_pickle: bool = False
    recipe: str | None = None  # a user's file that registers the model
    tta: bool = False
    threshold: float = 0.0
    temperature: float = 1.0
    topk: int = 3  # classes in the table; 0: the probability of each
    engine: str = ""  # what runs the model, e.g. OnnxPredictor
    weights_sha256: str = ""

    @property
    def settings(self) -> dict:
        "What decides the rows, for the manifest."
        return {"tta": self.tta, "threshold": self.threshold, "temperature": self.temperature,
                "classes": self.topk or "all", "engine": self.engine}


def job_of(model: BasePredictor, export: str, **settings) -> Job:
    "The job that `model`, which was opened from `export`, is to do."
    return Job(export, threshold=model.threshold, temperature=model.temperature, engine=engine_of(model),
               weights_sha256=weights_sha256(export), **settings)


def engine_of(model: BasePredictor) -> str:
    "Of a GPU the kind alone: the processes of a job share out those of a machine."
    name = type(model).__name__
    return name if name in ("OnnxPredictor", "TflitePredictor") else f"{name} on {model.device.type}"


def weights_sha256(export: str) -> str:
    "Of model.safetensors in a run, else of the file itself."
    path = expand_path(export)
    weights = run_folder(path) / WEIGHTS
    return file_sha256(weights if path.suffix not in EXPORTED and weights.is_file() else model_file(path))


def model_file(path: Path) -> Path:
    from cifar_fast.export.files import ONNX

    return path / ONNX if path.is_dir() else path


def open_model(job: Job) -> BasePredictor:
    "The model of a job, on one core. Raises BulkError where it is no longer the one that the job began with."
    if job.recipe:
        from cifar_fast.models import register_from_file

        register_from_file(job.recipe)
    model = load_model(job.export, job.device, job.trust_pickle, threads=1)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    if weights_sha256(job.export) != job.weights_sha256 or engine_of(model) != job.engine:
        raise BulkError(f"{job.export} has changed since this began; restore it and go on, or begin anew: --restart")
    return replace(model, threshold=job.threshold, temperature=job.temperature)
