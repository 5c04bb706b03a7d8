"""model.micro.tflite and model.h: for TensorFlow Lite Micro on microcontrollers.

The graph of model.int8.tflite without names and notes, and the same as a C array. tflite-micro runs it here and must
predict the classes that LiteRT does, but for a few images; the memory (arena) that it takes is measured.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.check import allowed
from cifar_fast.export.files import short
from cifar_fast.export.targets import Predict, litert, register_target
from cifar_fast.export.targets.c_header import header
from cifar_fast.export.targets.onnx import metadata
from cifar_fast.export.tflite_file import graph_of, judged, read_facts, with_facts
from cifar_fast.export.tflite_graph import repacked
from cifar_fast.export.tflite_predictor import Session
from cifar_fast.utils.streams import silenced

MICRO, HEADER = "model.micro.tflite", "model.h"
IMAGES = 200  # that both interpreters classify
DIFFER = 0.02  # fraction of the predicted classes that may differ: the interpreters round in different places
LARGEST_ARENA = 2**26
ARENA_STEP = 2**10  # bytes; the arena in model.h is a multiple of this, at least what was measured


def open_model(path: Path, card: Card) -> Predict | None:
    return litert.open_model(path, card) if path.name == MICRO else None


def measured(path: Path) -> dict[str, int]:
    "What the row says of memory."
    if path.name != MICRO:
        return {}
    content = path.read_bytes()
    return {"flash": len(graph_of(content)), "arena": int(read_facts(content)["arena"])}


def note(path: Path, run: bool) -> str:
    if path.name != MICRO:
        return "the same as a C array"
    facts = read_facts(path.read_bytes())
    return f"tflite-micro and LiteRT differ on {facts['micro_differ']} of {facts['micro_n']} images"


@register_target("micro", about="TensorFlow Lite Micro: microcontrollers, as a file and as a C array",
                 needs=(*litert.NEEDS, "tflite_micro"), install=litert.install_commands, open=open_model,
                 images=True, note=note, memory=measured, ready=partial(litert.ready, "micro"))
def make(folder: Path, card: Card, model: nn.Module, images: np.ndarray) -> list[Path]:
    graph = repacked(litert.quantized(card, model, images), bare=True)
    found, arena = run(graph, shown := images[-IMAGES:])
    expected = Session(graph).run(None, {"images": shown})[0]
    differ = int((found.argmax(1) != expected.argmax(1)).sum())
    if differ > (most := allowed(len(shown), DIFFER)):
        raise ExportError(f"tflite-micro and LiteRT predict different classes for {differ} of {len(shown)} images (at "
                          f"most {most} may differ); {MICRO} was not kept")
    (folder / MICRO).write_bytes(with_facts(graph, {**metadata(card), "arena": str(arena), "micro_n": str(len(shown)),
                                                    "micro_differ": str(differ)}))
    (folder / HEADER).write_text(header(graph, card, judged(graph).operators, rounded(arena)), "utf-8")
    return [folder / MICRO, folder / HEADER]


def rounded(arena: int) -> int:
    return -(-arena // ARENA_STEP) * ARENA_STEP


def run(graph: bytes, images: np.ndarray) -> tuple[np.ndarray, int]:
    "(probabilities (N, C), bytes of the arena) by tflite-micro, in an arena of the size that model.h then asks for."
    from tflite_micro.python.tflite_micro import runtime

    def interpreter(arena: int):
        run = runtime.Interpreter.from_bytes(graph, arena_size=arena)
        invoke(run, images[0])
        return run
    try:
        with silenced() as output:
            interpreter(LARGEST_ARENA).print_allocations()
            output.seek(0)
            arena = int(re.search(rb"Arena allocation total (\d+) bytes", output.read())[1])
            run = interpreter(rounded(arena))
        return np.stack([invoke(run, image) for image in images]), arena
    except Exception as e:  # an operation that it does not have, or too little memory
        raise ExportError(f"tflite-micro cannot run it: {short(e)}") from e


def invoke(run, image: np.ndarray) -> np.ndarray:
    run.set_input((image ^ 128).view(np.int8)[None], 0)
    run.invoke()
    return np.array(run.get_output(0)[0])
