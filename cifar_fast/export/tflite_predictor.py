"""A trained model in LiteRT's interpreter (ai-edge-litert), one image at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cifar_fast.export.onnx_file import oneline
from cifar_fast.export.onnx_predictor import OnnxPredictor, card_of, checked
from cifar_fast.export.tflite_file import OnnxInfo, TfliteError, read_tflite
from cifar_fast.utils.cores import BESIDE
from cifar_fast.utils.streams import silenced

ZERO = (1.0, -128)
"Scale and zero point of an int8 input: the pixel is the number + 128, so that no image loses anything."

PROBE = Path(__file__).with_name("tflite_probe.py")
SECONDS = 120  # that a file may take for two images


@dataclass(frozen=True)
class TflitePredictor(OnnxPredictor):
    "A file on its own, on the CPU."

    runtime = "LiteRT"


class Session:
    "LiteRT's interpreter as `OnnxPredictor` calls ONNX Runtime's."

    def __init__(self, content: bytes, threads: int | None = None):
        from ai_edge_litert.interpreter import Interpreter

        with silenced():  # it writes of its delegate
            self.interpreter = Interpreter(model_content=content, num_threads=threads)
            self.interpreter.allocate_tensors()
        (self.image,), (self.output,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()

    def run(self, names: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        "Of (N, size, size, 3) uint8 images, (N, C) float32."
        images, n = feeds["images"], len(feeds["images"])
        if self.image["dtype"] == np.int8:
            images = (images ^ 128).view(np.int8)
        found = np.empty((n, *self.output["shape"][1:]), np.float32)
        for i in range(n):
            self.interpreter.set_tensor(self.image["index"], images[i:i + 1])
            self.interpreter.invoke()
            found[i] = self.interpreter.get_tensor(self.output["index"])[0]
        return [found]

    def misfit(self, info: OnnxInfo) -> str | None:
        "What is not as files of this project are; None if nothing."
        image, output = self.image, self.output
        shapes = image["shape"].tolist(), output["shape"].tolist()
        if shapes != ([1, info.size, info.size, 3], [1, len(info.vocab)]) or output["dtype"] != np.float32:
            return f"its input is {shapes[0]}, its output {shapes[1]} ({output['dtype'].__name__})"
        if image["dtype"] == np.int8:
            return None if image["quantization"] == ZERO else (
                f"its input has scale and zero point {image['quantization']} instead of {ZERO}")
        return None if image["dtype"] == np.uint8 else f"it takes {image['dtype'].__name__} images"


def open_tflite(path: str | Path, threads: int | None = None) -> tuple[Session, OnnxInfo]:
    "A session of LiteRT on the CPU, and what the file says of itself. Raises TfliteError."
    content, info, _ = read_tflite(path)
    if find_spec("ai_edge_litert") is None:
        raise TfliteError(f"{path} needs LiteRT's interpreter, which is not installed here: python -m pip install "
                          f"ai-edge-litert")
    try:
        probe(content)
        session = Session(content, threads)
    except (RuntimeError, ValueError, TypeError) as e:
        raise TfliteError(f"{path} cannot be opened: {oneline(e)}; export it again") from None
    if misfit := session.misfit(info):
        raise TfliteError(f"{path} is no file of this project: {misfit}; python -m cifar_fast export NAME --to litert "
                          f"makes one")
    return session, info


def probe(content: bytes) -> None:
    "Raises ValueError where a process that opens and runs this file ends in an error or by a signal."
    try:
        done = subprocess.run([sys.executable, "-P", str(PROBE)], input=content, capture_output=True, timeout=SECONDS,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
    except subprocess.TimeoutExpired:
        raise ValueError(f"it took more than {SECONDS} s for two images") from None
    if done.returncode < 0:
        raise ValueError(f"it stops LiteRT's interpreter (signal {-done.returncode})")
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def open_file(path: Path, threads: int = BESIDE) -> TflitePredictor:
    "A .tflite of this project, wherever it is, by what it says of itself. Raises TfliteError, ExportError."
    session, info = open_tflite(path, threads)
    return checked(TflitePredictor(session, None, info.vocab, card_of(path, info), info.temperature, str(path),
                                   info.size, info.resize_mode, info.temperature))
