"""model.onnx: one file for ONNX Runtime on any system, which `predict` and `serve` run too."""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from cifar_fast import __version__
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.deployed import deployed
from cifar_fast.export.files import ONNX, short
from cifar_fast.export.onnx_file import open_onnx, read_onnx
from cifar_fast.export.targets import Predict, register_target
from cifar_fast.utils.files import atomic_write

OPSET = 18
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def open_model(path: Path, card: Card) -> Predict:
    import torch

    session = open_onnx(path, threads=torch.get_num_threads())[0]
    return lambda images: session.run(None, {"images": images})[0]


@register_target("onnx", about="ONNX Runtime: Python, C, C#, Java, JavaScript, phones", needs=NEEDS, open=open_model)
def make(folder: Path, card: Card, model: nn.Module) -> list[Path]:
    import onnx

    onnx.save(converted(card, model), folder / ONNX)
    return [folder / ONNX]


def converted(card: Card, model: nn.Module):
    "The model as an onnx.ModelProto. Raises ExportError."
    import onnx
    import torch

    module, example, shapes = deployed(model, card)
    module.temperature.fill_(2)  # by any but 1, which the converter would leave out
    try:
        with quietly(), torch.no_grad():
            proto = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=shapes, input_names=["images"],
                                      output_names=["probabilities"], opset_version=OPSET, verbose=False).model_proto
    except Exception as e:  # a converter may raise anything at an operation that it does not know
        raise ExportError(f"{card.arch} cannot be converted to ONNX: {short(e)}") from e
    proto.producer_name, proto.producer_version = "cifar_fast", __version__
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]  # the stack of Python that each came from
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    onnx.helper.set_model_props(proto, metadata(card))
    set_temperature(proto, card.temperature)
    return proto


def metadata(card: Card) -> dict[str, str]:
    "What goes with the graph, as text: enough to prepare images for it and to name its classes."
    return {"name": card.name, "classes": json.dumps(card.vocab, ensure_ascii=False), "size": str(card.size),
            "resize_mode": card.resize_mode, "ranges": json.dumps(card.data.ranges) if card.data.ranges else "",
            "temperature": repr(card.temperature), "weights_sha256": card.sha256 or "", "cifar_fast": __version__}


def set_temperature(proto, temperature: float) -> None:
    from onnx import helper, numpy_helper

    tensor = next(t for t in proto.graph.initializer if t.name == "temperature")
    tensor.CopyFrom(numpy_helper.from_array(np.float32(temperature).reshape(()), tensor.name))
    properties = {p.key: p.value for p in proto.metadata_props}
    helper.set_model_props(proto, {**properties, "temperature": repr(temperature)})


def retemper(path: Path, temperature: float) -> None:
    "Write another temperature into a file that `make` or the quantiser made. Raises OnnxError."
    import onnx

    proto = onnx.load_model_from_string(read_onnx(path)[0])
    set_temperature(proto, temperature)
    with atomic_write(path) as tmp:
        onnx.save(proto, tmp)


@contextmanager
def quietly():
    "The converter warns of its own changes and logs what it does."
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
