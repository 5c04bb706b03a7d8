"""A .tflite file, read as untrusted input: its size is capped, and it is one graph of known operations.

The checks walk the flatbuffer themselves, within its bounds, so that a file is judged before a library parses it. What
goes with the graph (classes, size, temperature) is in a ZIP archive behind it, as TFLite's files carry their labels:
`unzip -p model.tflite labels.txt` shows those.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cifar_fast.export.onnx_file import NODES, OnnxInfo, described, oneline
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import read_regular
from cifar_fast.utils.text import printable

TFLITE_BYTES = 2**29
FACTS, LABELS = "cifar_fast.json", "labels.txt"
FACTS_BYTES = 2**22
TENSOR_BYTES, TENSORS, RANK = 2**30, 50_000, 8
CUSTOM = 32  # the code of operations that bring their own program

OPERATORS = {  # code in TFLite's schema → name
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL",
    19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 25: "SOFTMAX", 26: "SPACE_TO_DEPTH", 28: "TANH",
    34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 45: "STRIDED_SLICE",
    47: "EXP", 49: "SPLIT", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 57: "MINIMUM", 59: "NEG",
    60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 73: "LOG", 74: "SUM", 75: "SQRT", 76: "RSQRT",
    78: "POW", 82: "REDUCE_MAX", 83: "PACK", 88: "UNPACK", 89: "REDUCE_MIN", 92: "SQUARE", 98: "LEAKY_RELU",
    99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD", 101: "ABS", 102: "SPLIT_V", 107: "GATHER_ND", 111: "ELU",
    114: "QUANTIZE", 117: "HARD_SWISH", 126: "BATCH_MATMUL", 130: "BROADCAST_TO", 150: "GELU", 151: "RELU_0_TO_1",
}
"Those that image classifiers are made of: each computes from its inputs alone."

ELEMENT = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 17: 1}  # type of a tensor → bytes of an element


class TfliteError(CifarFastError):
    "A .tflite file that cannot be used; the message names it and the next step."


@dataclass(frozen=True)
class Judged:
    "A graph that may be opened."

    end: int  # of the flatbuffer, as far as it is known: what follows is the archive
    operators: tuple[str, ...]  # that it uses, by name
    weights: tuple[tuple[int, int], ...]  # (start, bytes) of each buffer in the file
    outside: bool  # whether some of them are behind the flatbuffer, where TFLite Micro does not look


def read_tflite(path: str | Path) -> tuple[bytes, OnnxInfo, dict[str, str]]:
    "The content of a file, what it says of itself and the same as it is written there. Raises TfliteError."
    again = "export it again: python -m cifar_fast export NAME --to litert"
    try:
        content = read_regular(path, TFLITE_BYTES)
        judged(content)
        facts = read_facts(content)
        return content, described(facts), facts
    except FileNotFoundError:
        raise TfliteError(f"no file {path}; {again}") from None
    except OSError as e:
        raise TfliteError(f"{path} cannot be read: {e.strerror or e}; {again}") from None
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, struct.error) as e:
        raise TfliteError(f"{path} is no model that this project made, or it is damaged: {oneline(e)}; "
                          f"{again}") from None


# ---------------------------------------------------------------- the archive behind the graph


def with_facts(graph: bytes, facts: Mapping[str, str]) -> bytes:
    "The graph with an archive of `facts` and the labels behind it; the same bytes for the same values."
    file = io.BytesIO()
    file.write(graph)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in ((LABELS, "".join(f"{label}\n" for label in json.loads(facts["classes"]))),
                           (FACTS, json.dumps(dict(facts), ensure_ascii=False, indent=1))):
            archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


def read_facts(content: bytes) -> dict[str, str]:
    "Raises ValueError."
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(FACTS) as file:
            text = file.read(FACTS_BYTES + 1)
    except Exception as e:  # zipfile lets through what zlib, struct and its own checks raise
        raise ValueError(f"{FACTS} is not in it ({oneline(e)})") from None
    facts = json.loads(text) if len(text) <= FACTS_BYTES else None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError(f"its {FACTS} is no table of texts")
    return facts


def graph_of(content: bytes) -> bytes:
    "The file without the archive: what a microcontroller needs. Raises ValueError."
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return content[:min(info.header_offset for info in archive.infolist())]
    except (zipfile.BadZipFile, ValueError) as e:
        raise ValueError(f"there is no archive behind the graph: {e}") from None


# ---------------------------------------------------------------- flatbuffers, as far as they are needed


class Table:
    "A table of a flatbuffer. Every position that the file gives is checked before it is followed."

    def __init__(self, content: bytes, at: int):
        self.content, self.at = content, at
        self.fields = at - number(content, "<i", at)
        self.length = number(content, "<H", self.fields)  # of the list of its fields, bytes

    def place(self, field: int) -> int:
        "Where a field is; 0 where it has its default."
        entry = 4 + 2 * field
        offset = number(self.content, "<H", self.fields + entry) if entry + 2 <= self.length else 0
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str, default: int = 0) -> int:
        return number(self.content, kind, at) if (at := self.place(field)) else default

    def vector(self, field: int, size: int) -> tuple[int, int]:
        "(start, elements) of a vector with elements of `size` bytes."
        if not (at := self.place(field)):
            return 0, 0
        start = at + number(self.content, "<I", at)
        n = number(self.content, "<I", start)
        if start + 4 + n * size > len(self.content):
            raise ValueError("a list is longer than the file")
        return start + 4, n

    def numbers(self, field: int) -> tuple[int, ...]:
        "A vector of 32-bit numbers."
        start, n = self.vector(field, 4)
        return struct.unpack_from(f"<{n}i", self.content, start)

    def tables(self, field: int, most: int) -> list[Table]:
        start, n = self.vector(field, 4)
        if n > most:
            raise ValueError(f"it has a list of {n:,} parts; at most {most:,} are read")
        return [Table(self.content, at + number(self.content, "<I", at)) for at in range(start, start + 4 * n, 4)]


def number(content: bytes, kind: str, at: int) -> int:
    "Raises ValueError outside of the file."
    if not 0 <= at <= len(content) - struct.calcsize(kind):
        raise ValueError("it points out of the file")
    return struct.unpack_from(kind, content, at)[0]


# ---------------------------------------------------------------- what a file may hold; numbers are those of schema.fbs


def judged(content: bytes) -> Judged:
    "What is in a file of one graph, known operations and its own weights. Raises ValueError."
    if content[4:8] != b"TFL3":
        raise ValueError("it is no TFLite file")
    model = Table(content, number(content, "<I", 0))
    operators = [operator(table) for table in model.tables(1, len(OPERATORS))]
    weights = [place for place in (buffer(table, content) for table in model.tables(4, TENSORS)) if place]
    graphs = model.tables(2, 2)
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs instead of one")
    judge_graph(graphs[0], operators, len(model.tables(4, TENSORS)))
    outside = any(outside for *_, outside in weights)
    return Judged(max((start + size for start, size, _ in weights), default=0), tuple(dict.fromkeys(operators)),
                  tuple((start, size) for start, size, _ in weights), outside)


def operator(table: Table) -> str:
    code = max(table.number(0, "<b"), table.number(3, "<i"))  # the first is from when there were fewer than 128
    if code not in OPERATORS or table.place(1):
        raise ValueError("it brings operations of its own, which are not run here" if code == CUSTOM or table.place(1)
                         else f"it uses operation {code}, which is not in the list of those that are run here")
    return OPERATORS[code]


def buffer(table: Table, content: bytes) -> tuple[int, int, bool] | None:
    "(start, bytes, whether it is behind the flatbuffer); None for one without content."
    offset, size = table.number(1, "<Q"), table.number(2, "<Q")
    if offset > 1:
        if offset + size > len(content):
            raise ValueError("its weights point out of the file")
        return offset, size, True
    start, n = table.vector(0, 1)
    return (start, n, False) if n else None


def judge_graph(graph: Table, operators: list[str], buffers: int) -> None:
    tensors = graph.tables(0, TENSORS)
    for tensor in tensors:
        shape, kind = tensor.numbers(0), tensor.number(1, "<b")
        if kind not in ELEMENT:
            raise ValueError(f"it has values of type {kind}, which is not used here")
        if len(shape) > RANK or min(shape, default=1) < 0 or math.prod(shape) * ELEMENT[kind] > TENSOR_BYTES:
            raise ValueError(f"it has values of the shape {printable(str(shape))[:80]}")
        if tensor.number(2, "<I") >= buffers:
            raise ValueError("its weights point out of the file")
    nodes = graph.tables(3, NODES)
    inputs, outputs = graph.numbers(1), graph.numbers(2)
    used = [*inputs, *outputs]
    for node in nodes:
        if node.number(0, "<I") >= len(operators):
            raise ValueError("it uses an operation that it does not name")
        if not all(-1 <= i < len(tensors) for i in node.numbers(1)):
            raise ValueError("an operation reads what is not there")
        used += node.numbers(2)
    if (len(inputs), len(outputs)) != (1, 1) or not all(0 <= i < len(tensors) for i in used):
        raise ValueError("it does not have one input and one output")
