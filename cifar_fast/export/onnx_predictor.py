"""A trained model in ONNX Runtime: opened in a fraction of a second, where torch and timm need many."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_fast.data.images import batch_size
from cifar_fast.export.base import BasePredictor, probe
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Data, Normalization
from cifar_fast.export.files import ONNX, WEIGHTS, file_sha256, short
from cifar_fast.export.onnx_file import OnnxError, OnnxInfo, open_onnx
from cifar_fast.export.temperature import tempered
from cifar_fast.utils.cores import BESIDE

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession

    from cifar_fast.export.predictor import Predictor

OTHER = 8.0
"""Times the temperature in the file up to which another follows from the probabilities: those below 1e-45 are 0 in
float32, and the eighth root of that is 2e-6."""


@dataclass(frozen=True)
class OnnxPredictor(BasePredictor):
    """A saved run in ONNX Runtime, on the CPU.

    What only torch can (`model`, `normalize`, `logits`) opens the run there at the first use.
    """

    runtime = "ONNX Runtime"

    session: InferenceSession
    folder: Path | None  # of the run; None for a file on its own
    vocab: list[str]
    card: Card
    inside: float  # the temperature in the graph
    origin: str
    size: int
    resize_mode: str
    temperature: float
    threshold: float = 0.0

    def probabilities(self, images: np.ndarray, tta: bool = False,
                      bs: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        if self.temperature > OTHER * self.inside:
            return self.torch.probabilities(images, tta, bs)
        if not len(images):
            return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
        bs, plain, mirrored = bs or batch_size(self.size), [], []
        for i in range(0, len(images), bs):
            batch = np.ascontiguousarray(images[i:i + bs])
            plain.append(self.run(batch))
            if tta:
                mirrored.append((plain[-1] + self.run(np.ascontiguousarray(batch[:, :, ::-1]))) / 2)
        return np.concatenate(plain), np.concatenate(mirrored) if tta else None

    def run(self, batch: np.ndarray) -> np.ndarray:
        "Raises ExportError where ONNX Runtime cannot."
        try:
            (probs,) = self.session.run(["probabilities"], {"images": batch})
        except Exception as e:  # its exceptions have no base class but RuntimeError and Exception
            raise ExportError(f"{self.origin} cannot be run: {short(e)}") from None
        return probs if self.temperature == self.inside else tempered(probs, self.temperature / self.inside)

    @property
    def most_temperature(self) -> float:
        "Of a file on its own, see OTHER; beyond it a run's folder is opened in torch."
        return OTHER * self.inside if self.folder is None else float("inf")

    # ------------------------------------------------------------ what only torch can

    @cached_property
    def torch(self) -> Predictor:
        "The same run in torch. Raises ExportError."
        from cifar_fast.export.predictor import load_export

        if self.folder is None:
            raise ExportError(f"{self.origin} is run by {self.runtime} alone; open the run's folder for what needs "
                              f"torch")
        return replace(load_export(self.folder), temperature=self.temperature, threshold=self.threshold)

    @property
    def device(self) -> torch.device:
        return self.torch.device

    @property
    def model(self) -> torch.nn.Module:
        return self.torch.model

    def normalize(self, images: np.ndarray) -> torch.Tensor:
        return self.torch.normalize(images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.torch.logits(images)


# ---------------------------------------------------------------- opening


def open_run(folder: Path, card: Card, threads: int = BESIDE) -> OnnxPredictor | None:
    "The run by its model.onnx; None without one, and with a warning where it is not of this card and these weights."
    path = folder / ONNX
    if not path.exists():
        return None
    try:
        session, info = open_onnx(path, threads)
        if differs := difference(folder, card, info):
            raise OnnxError(f"{path} is not of this run as it is now ({differs} differs); python -m cifar_fast export "
                            f"{folder} --to onnx makes it again")
        predictor = OnnxPredictor(session, folder, card.vocab, card, card.temperature, str(path), card.size,
                                  card.resize_mode, card.temperature)
        return checked(predictor)
    except (OnnxError, ExportError) as e:
        warnings.warn(f"{e}. Until then torch is used, which takes longer to start", stacklevel=2)
        return None


def open_file(path: Path, threads: int = BESIDE) -> OnnxPredictor:
    "An .onnx file of this project, wherever it is, by what it says of itself. Raises OnnxError, ExportError."
    session, info = open_onnx(path, threads)
    return checked(OnnxPredictor(session, None, info.vocab, card_of(path, info), info.temperature, str(path),
                                 info.size, info.resize_mode, info.temperature))


def card_of(path: Path, info: OnnxInfo) -> Card:
    "The card beside a file, where it is of the same weights; else one with what the file itself says."
    if (path.parent / CARD).is_file():
        card = read_card(path.parent)
        if card.sha256 == info.weights_sha256 and card.vocab == info.vocab:
            return card
    return Card(arch="onnx", vocab=info.vocab, normalize=Normalization(mean=[0.0] * 3, std=[1.0] * 3), size=info.size,
                resize_mode=info.resize_mode, name=info.name, data=Data(ranges=info.ranges))


def difference(folder: Path, card: Card, info: OnnxInfo) -> str | None:
    "What a file says otherwise than the card and the weights of its run; None if all is the same."
    weights = folder / WEIGHTS
    there = file_sha256(weights) if weights.is_file() else card.sha256  # a run may be passed on without its weights
    pairs = {"classes": (info.vocab, card.vocab), "weights": (info.weights_sha256, there),
             "size": (info.size, card.size), "resize_mode": (info.resize_mode, card.resize_mode),
             "temperature": (info.temperature, card.temperature), "ranges": (info.ranges, card.data.ranges)}
    return next((name for name, (in_file, in_run) in pairs.items() if in_file != in_run), None)


def checked(predictor: OnnxPredictor) -> OnnxPredictor:
    "The predictor, once it has classified a black and a white image. Raises ExportError."
    shape = predictor.predict(probe(predictor.size)).shape
    if shape != (2, len(predictor.vocab)):
        raise ExportError(f"{predictor.origin} gives {shape[1:]} values for {len(predictor.vocab)} classes")
    return predictor
