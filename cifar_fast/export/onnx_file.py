"""An .onnx file, read as untrusted input: its size is capped, it reads no other files, and its operators are in a list.

The checks walk the file's protobuf messages themselves, so that a file is judged before a library parses it, and
nothing but ONNX Runtime is imported.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import read_regular
from cifar_fast.utils.text import is_printable, printable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_BYTES = 2**29
NODES = 20_000
LARGEST_ATTRIBUTE = 4_096  # of a kernel, stride, padding: a huge padding would take all memory
CLASSES, SIDE = 10_000, 1024
MEMORY = 2**33  # bytes for the maps of all models in this process: a file can ask for a map of any size

OPERATORS = frozenset("""
    Abs Add And AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose DepthToSpace
    DequantizeLinear Div Elu Equal Erf Exp Expand Flatten Gather GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Log
    LogSoftmax MatMul Max MaxPool Min Mish Mul Neg PRelu Pad Pow QuantizeLinear RMSNormalization Reciprocal ReduceL2
    ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Shape Sigmoid Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Transpose Unsqueeze Where
""".split())
"Those that image classifiers are made of: each computes from its inputs alone."


class OnnxError(CifarFastError):
    "An .onnx file that cannot be used; the message names it and the next step."


@dataclass(frozen=True)
class OnnxInfo:
    "What a file says of itself."

    name: str
    vocab: list[str]
    size: int  # of the images, pixels
    resize_mode: str
    temperature: float  # that its probabilities were made with
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights_sha256: str = ""  # of the model.safetensors that it was made from


def open_onnx(path: str | Path, threads: int | None = None) -> tuple[InferenceSession, OnnxInfo]:
    "A session of ONNX Runtime on the CPU, and what the file says of itself. Raises OnnxError."
    content, info = read_onnx(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")  # the one with a limit
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, not a format of its own
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that waits leaves its core
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs, outputs = ([(v.name, v.type, len(v.shape)) for v in values]
                           for values in (session.get_inputs(), session.get_outputs()))
        shape = session.get_inputs()[0].shape[1:]
    except Exception as e:  # classes of its own, which share no base but Exception
        raise OnnxError(f"{path} cannot be opened: {oneline(e)}; export it again") from None
    if inputs != [("images", "tensor(uint8)", 4)] or outputs != [("probabilities", "tensor(float)", 2)] \
            or shape != [info.size, info.size, 3]:
        raise OnnxError(f"{path} takes {inputs} and gives {outputs}; files of this project take images (uint8, "
                        f"N×{info.size}×{info.size}×3) and give probabilities: python -m cifar_fast export NAME --to "
                        f"onnx makes one")
    return session, info


@cache
def limit_memory() -> None:
    "Once in a process: the allocator that its sessions share."
    import onnxruntime as ort

    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(cpu, ort.OrtArenaCfg({"max_mem": MEMORY}))


def read_onnx(path: str | Path) -> tuple[bytes, OnnxInfo]:
    "The content of a file and its metadata, once it was found harmless. Raises OnnxError."
    again = "export it again: python -m cifar_fast export NAME --to onnx"
    try:
        content = read_regular(path, ONNX_BYTES)
        return content, described(judged(content))
    except FileNotFoundError:
        raise OnnxError(f"no file {path}; {again}") from None
    except OSError as e:
        raise OnnxError(f"{path} cannot be read: {e.strerror or e}; {again}") from None
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, struct.error) as e:
        raise OnnxError(f"{path} is no model that this project made, or it is damaged: {oneline(e)}; {again}") from None


def oneline(e: BaseException) -> str:
    return printable(" ".join(str(e).split()))[:200] or type(e).__name__


def described(properties: dict[str, str]) -> OnnxInfo:
    "The metadata, checked. Raises ValueError."
    if missing := {"classes", "size", "temperature"} - properties.keys():
        raise ValueError(f"its metadata lacks {', '.join(sorted(missing))}")
    vocab, size, temperature = (json.loads(properties[key]) for key in ("classes", "size", "temperature"))
    ranges = json.loads(properties.get("ranges") or "{}")
    mode = properties.get("resize_mode", "crop")
    if not (isinstance(vocab, list) and 0 < len(vocab) <= CLASSES
            and all(isinstance(name, str) and is_printable(name) and name for name in vocab)):
        raise ValueError("its classes are no list of names")
    if not (type(size) is int and 0 < size <= SIDE):
        raise ValueError(f"its size is {printable(repr(size))}, not pixels from 1 to {SIDE:,}")
    if not (type(temperature) in (int, float) and 0 < temperature < math.inf):
        raise ValueError(f"its temperature is {printable(repr(temperature))}")
    if mode not in ("crop", "pad", "squash"):
        raise ValueError(f"its resize_mode is {printable(repr(mode))}")
    if not (isinstance(ranges, dict) and all(isinstance(r, list) and len(r) == 2 and all(
            type(v) in (int, float) and math.isfinite(v) for v in r) for r in ranges.values())):
        raise ValueError("its ranges are no pairs of numbers")
    return OnnxInfo(printable(properties.get("name", "")), vocab, size, mode, float(temperature),
                    {kind: (low, high) for kind, (low, high) in ranges.items()}, properties.get("weights_sha256", ""))


# ---------------------------------------------------------------- protobuf, as far as it is needed

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    "(number, wire type, value) of each field of a message. Raises ValueError where it is cut or no protobuf."
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = varint(message, at)
        elif wire in (FIXED64, FIXED32, BYTES):
            length, at = varint(message, at) if wire == BYTES else ({FIXED64: 8, FIXED32: 4}[wire], at)
            if length > len(message) - at:
                raise ValueError("a field is longer than the file")
            value, at = message[at:at + length], at + length
        else:
            raise ValueError(f"a field has the wire type {wire}")
        yield number, wire, value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(message):
            break
        value |= (message[at + i] & 0x7F) << 7 * i
        if message[at + i] < 0x80:
            return value & 2**64 - 1, at + i + 1
    raise ValueError("a number in it is cut or too long")


def text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number stands where text belongs")
    return bytes(value).decode()


def parts(message: memoryview, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    "(number, message) of those fields that are messages of these numbers."
    for number, wire, value in fields(message):
        if number in numbers:
            if wire != BYTES:
                raise ValueError(f"its field {number} is no message")
            yield number, value


# ---------------------------------------------------------------- what a file may hold; numbers are those of onnx.proto


def judged(content: bytes) -> dict[str, str]:
    "The metadata of a model (ModelProto) that holds known operators and its own weights alone. Raises ValueError."
    if bytes(content[4:8]) == b"ORTM":
        raise ValueError("it is in ONNX Runtime's own format")
    graphs, properties = [], {}
    for number, part in parts(memoryview(content), 7, 8, 14, 20, 25):
        if number == 7:
            graphs.append(part)
        elif number == 8:
            known_domain("".join(text(value) for n, _, value in fields(part) if n == 1))
        elif number == 14:
            pair = {n: text(value) for n, _, value in fields(part) if n in (1, 2)}
            properties[pair.get(1, "")] = pair.get(2, "")
        else:
            raise ValueError("it brings functions or training of its own, which are not used here")
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs instead of one")
    nodes = 0
    for number, part in parts(graphs[0], 1, 5, 15):
        if number == 5:
            judge_tensor(part)
        elif number == 15:
            raise ValueError("it has sparse weights, which are not used here")
        else:
            nodes += 1
            judge_node(part)
    if nodes > NODES:
        raise ValueError(f"it has {nodes:,} operations; at most {NODES:,} are run")
    return properties


def known_domain(domain: str) -> None:
    if domain not in ("", "ai.onnx"):
        raise ValueError(f"it uses operators of {printable(domain)!r}; only those of ONNX itself are run")


def judge_node(node: memoryview) -> None:
    "A NodeProto."
    operator = ""
    for number, _, value in fields(node):
        if number == 4:
            operator = text(value)
        elif number == 7:
            known_domain(text(value))
        elif number == 5:
            judge_attribute(value)
    if operator not in OPERATORS:
        raise ValueError(f"it uses the operator {printable(operator)!r}, which is not in the list of those that are "
                         f"run here")


def judge_attribute(attribute: memoryview) -> None:
    "An AttributeProto: numbers, text and tensors, no graphs."
    for number, wire, value in fields(attribute):
        if number == 5:
            judge_tensor(value)
        elif number in (6, 10, 11, 15, 22, 23):
            raise ValueError("an operation holds a graph or a list of tensors, which are not run here")
        elif number in (3, 8):
            for n in ([value] if wire == VARINT else packed(value)):
                signed = n - 2**64 if n >= 2**63 else n
                if abs(signed) > LARGEST_ATTRIBUTE and signed not in (2**63 - 1, -2**63):
                    raise ValueError(f"an operation has the setting {signed:,}, more than {LARGEST_ATTRIBUTE:,}")


def packed(values: memoryview) -> Iterator[int]:
    at = 0
    while at < len(values):
        value, at = varint(values, at)
        yield value


def judge_tensor(tensor: memoryview) -> None:
    "A TensorProto: its values stand in the file itself."
    for number, _, value in fields(tensor):
        if number == 13 or (number == 14 and value):
            raise ValueError("its weights are in another file, which is not read")
