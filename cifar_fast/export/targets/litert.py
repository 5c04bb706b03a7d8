"""model.tflite and model.int8.tflite: for LiteRT (TensorFlow Lite) on phones and small boards.

Both take one image and give probabilities as float32. model.tflite takes pixels as they are, uint8, and computes in
float32. model.int8.tflite takes pixels less 128 as int8, computes in int8 and ends with a softmax in float32, as 8 bits
would round probabilities to 1/256. Its ranges are the means of the smallest and largest values in batches of images of
train.
"""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.deployed import Deployed
from cifar_fast.export.files import short
from cifar_fast.export.targets import Predict, register_target
from cifar_fast.export.targets.onnx import metadata
from cifar_fast.export.tflite_file import read_tflite, with_facts
from cifar_fast.export.tflite_graph import repacked
from cifar_fast.export.tflite_predictor import ZERO, Session
from cifar_fast.utils.streams import silenced

TFLITE, TFLITE_INT8 = "model.tflite", "model.int8.tflite"
NEEDS = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
BATCHES, BATCH = 4, 125  # images that int8 is calibrated on
INPUT = "serving_default_images"  # as the converter calls it
TORCH_BELOW = (2, 15)  # what the converter takes


def install_commands(run: str) -> str:
    "What makes an environment for this target and `micro`, and exports a run there."
    root = Path(__file__).resolve().parents[3]
    here = "." if root == Path.cwd() else str(root)
    package = f'-e "{here}[litert]"' if (root / "pyproject.toml").is_file() else '"cifar_fast[litert]"'
    uv = "" if find_spec("uv") else "python -m pip install uv\n"
    python = "litert-env/Scripts/python" if os.name == "nt" else "litert-env/bin/python"
    return (f"# litert-torch takes torch below {'.'.join(map(str, TORCH_BELOW))}: in an environment of its own\n"
            f"{uv}python -m uv venv litert-env\n"
            f"python -m uv pip install --python litert-env {package}\n"
            f"{python} -m cifar_fast export {shlex.quote(run)} --to litert,micro")


def ready(name: str, run: str) -> None:
    "Raises ExportError where torch is too new, which converters meet with errors of any kind."
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version >= TORCH_BELOW:
        raise ExportError(f"--to {name} cannot be made with torch {torch.__version__}:\n{install_commands(run)}")


def open_model(path: Path, card: Card) -> Predict:
    session = Session(read_tflite(path)[0], torch.get_num_threads())
    return lambda images: session.run(None, {"images": images})[0]


@register_target("litert", about="LiteRT (TensorFlow Lite): phones, Raspberry Pi; as it is and in 8 bits", needs=NEEDS,
                 install=install_commands, open=open_model, images=True, ready=partial(ready, "litert"))
def make(folder: Path, card: Card, model: nn.Module, images: np.ndarray) -> list[Path]:
    graphs = {TFLITE: converted(card, model, torch.uint8), TFLITE_INT8: quantized(card, model, images)}
    for name, graph in graphs.items():
        (folder / name).write_bytes(with_facts(repacked(graph), metadata(card)))
    return [folder / name for name in graphs]


class Pixels(Deployed):
    "The model from pixels in any type; normalisation is one operation, a depthwise convolution, so int8 rounds once."

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        "(1, size, size, 3), red green blue → (1, C) float32."
        x = F.conv2d(images.float().permute(0, 3, 1, 2), self.scale[..., None], self.shift.flatten(), groups=3)
        return {"probabilities": (self.model(x).float() / self.temperature).softmax(1)}


def converted(card: Card, model: nn.Module, dtype: torch.dtype) -> bytes:
    "The model as a graph of TFLite that takes pixels of this type. Raises ExportError."
    module = Pixels(model, card).eval()
    try:
        with quietly(), torch.no_grad():
            import litert_torch

            edge = litert_torch.convert(module, sample_kwargs={
                "images": torch.zeros(1, card.size, card.size, 3, dtype=dtype)})
            return edge.model_content()
    except Exception as e:  # a converter may raise anything at an operation that it does not know
        raise ExportError(f"{card.arch} cannot be converted to LiteRT: {short(e)}") from e


def quantized(card: Card, model: nn.Module, images: np.ndarray) -> bytes:
    "The graph in int8 but for the softmax. Raises ExportError."
    graph = converted(card, model, torch.float32)
    try:
        with quietly():
            result = quantize(graph, ranges(graph, images[:BATCHES * BATCH]))
    except Exception as e:  # the quantiser raises anything at a graph that it does not take
        raise ExportError(f"{card.arch} cannot be quantised: {short(e)}") from e
    image = Session(result).image
    if image["dtype"] != np.int8 or image["quantization"] != ZERO:
        raise ExportError(f"the quantiser made an input with scale and zero point {image['quantization']} instead of "
                          f"{ZERO}, which would clip pixels; it was not kept")
    return result


def quantize(graph: bytes, found: dict[str, dict]) -> bytes:
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import AlgorithmName, Quantizer

    quantizer = Quantizer(graph, recipe.static_wi8_ai8())
    for operation in (TFLOperationName.SOFTMAX, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return bytes(quantizer.quantize(found, enable_progress_report=False).quantized_model)


def ranges(graph: bytes, images: np.ndarray) -> dict[str, dict]:
    "Tensor → {min, max}: means over batches. Pixels go from 0 to 255 whatever the images have."
    batches = np.array_split(images, min(BATCHES, len(images)))
    found = [extremes(graph, batch) for batch in batches]
    means = {name: {key: np.mean([f[name][key] for f in found], axis=0) for key in ("min", "max")} if values else values
             for name, values in found[0].items()}
    pixels = means[INPUT]
    means[INPUT] = {"min": np.zeros_like(pixels["min"]), "max": np.full_like(pixels["max"], 255)}
    return means


def extremes(graph: bytes, images: np.ndarray) -> dict[str, dict]:
    """Tensor → smallest and largest value over images, one after the other.

    A graph of one image may have its batch built in: given more at once, parts of it would see the first alone.
    """
    from ai_edge_quantizer import calibrator, recipe
    from ai_edge_quantizer.recipe_manager import RecipeManager

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    run = calibrator.Calibrator(graph, num_threads=torch.get_num_threads(), qsv_update_func=wider)
    run.calibrate({"serving_default": [{"images": image[None].astype(np.float32)} for image in images]}, manager)
    return run.get_model_qsvs()


def wider(old: dict, new: dict) -> dict:
    return {"min": np.minimum(old["min"], new["min"]), "max": np.maximum(old["max"], new["max"])} if old else new


class quietly:
    "The converters warn, log and draw their progress."

    def __enter__(self):
        self.warnings, self.output = warnings.catch_warnings(), silenced()
        self.warnings.__enter__()
        self.output.__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *error):
        logging.disable(logging.NOTSET)
        self.output.__exit__(*error)
        self.warnings.__exit__(*error)
