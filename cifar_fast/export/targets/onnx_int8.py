"""model.int8.onnx: the same graph with 8-bit weights and activations, about a quarter of the bytes.

Weights are quantised by channel. The ranges of activations are taken from images of train, by the method whose
probabilities are nearest to the model's own (KL divergence) on further images of train.
"""

from __future__ import annotations

import logging
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import INT8, short
from cifar_fast.export.onnx_file import open_onnx
from cifar_fast.export.targets import register_target
from cifar_fast.export.targets.onnx import NEEDS, converted, open_model

WAYS = {"smallest and largest value": ("MinMax", {}),
        "percentile 99.99": ("Percentile", {"CalibPercentile": 99.99}),
        "percentile 99.9": ("Percentile", {"CalibPercentile": 99.9}),
        "least entropy": ("Entropy", {})}
CALIBRATE = 500  # images; the others decide
AT_A_TIME = 50


@register_target("onnx-int8", about="the same in 8 bits: a quarter of the bytes, faster on most processors",
                 needs=NEEDS, open=open_model, images=True, note=lambda path, run: f"ranges by {way_of(path)}")
def make(folder: Path, card: Card, model: nn.Module, images: np.ndarray) -> list[Path]:
    import onnx

    onnx.save(converted(card, model), path := folder / "float.onnx")
    calibrate, decide = split(images)
    try:
        made = {way: quantized(path, folder / f"{i}.onnx", calibrate, *WAYS[way]) for i, way in enumerate(WAYS)}
    except Exception as e:  # the quantiser raises anything at a graph that it does not take
        raise ExportError(f"{card.arch} cannot be quantised: {short(e)}") from e
    expected = probabilities(path, decide)
    losses = {way: divergence(expected, probabilities(path, decide)) for way, path in made.items()}
    best = min(losses, key=losses.get)
    return [marked(made[best], folder / INT8, best)]


def split(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "(to calibrate with, to decide on): of few images half each."
    n = min(CALIBRATE, (len(images) + 1) // 2)
    n -= n % min(n, AT_A_TIME)  # the quantiser takes whole batches
    return images[:n], images[n:] if len(images) > n else images


def quantized(source: Path, path: Path, images: np.ndarray, method: str, options: dict) -> Path:
    "Write the graph of `source` with ranges from these images."
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    logging.disable(logging.WARNING)  # it recommends, by the root logger, a preprocessing that changes nothing here
    try:
        with redirect_stdout(None):
            quantize_static(
                source, path, reader(images), per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[method],
                nodes_to_exclude=[node.name for node in onnx.load(source).graph.node if stays_float(node)],
                extra_options={"CalibStridedMinMax": min(AT_A_TIME, len(images)), **options})
    finally:
        logging.disable(logging.NOTSET)
    return path


def stays_float(node) -> bool:
    "Normalisation, temperature and softmax: they cost nothing, and 8 bits would round probabilities to 1/256."
    return node.op_type == "Softmax" or bool({"scale", "shift", "temperature"} & set(node.input))


def reader(images: np.ndarray):
    "What the quantiser reads images from, a few at a time: it keeps every activation of what it read."
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __len__(self):
            return len(images)

        def set_range(self, start_index, end_index):
            self.batches = iter([images[start_index:end_index]])

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}
    return Reader()


def probabilities(path: Path, images: np.ndarray) -> np.ndarray:
    import torch

    session = open_onnx(path, torch.get_num_threads())[0]
    return np.concatenate([session.run(None, {"images": images[i:i + 125]})[0] for i in range(0, len(images), 125)])


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    "Kullback-Leibler, the mean over images."
    return float((expected * np.log((expected + 1e-9) / (found + 1e-9))).sum(1).mean())


def way_of(path: Path) -> str:
    import onnx

    return {p.key: p.value for p in onnx.load(path).metadata_props}["calibration"]


def marked(path: Path, target: Path, way: str) -> Path:
    "The file with the way that was chosen among its metadata."
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {**{p.key: p.value for p in proto.metadata_props}, "calibration": way})
    onnx.save(proto, target)
    return target
