"""A .tflite of two operations and its parts, to be changed and broken."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from cifar_fast.export.tflite_file import with_facts
from cifar_fast.export.tflite_graph import IDENTIFIER

FACTS = {"classes": '["ant", "bee"]', "size": "8", "temperature": "1.0", "name": "farm"}
WEIGHTS = np.array([[1, 0, 0], [0, 0, 1]], np.float32)


def parts(
    int8: bool = False,  # images less 128
    scale: float = 1.0,  # of these
    size: int = 8,
):
    "(1, size, size, 3) images to softmax(means of red and blue), as a ModelT."
    image = tensor("images", (1, size, size, 3), schema.TensorType.INT8 if int8 else schema.TensorType.UINT8)
    if int8:
        image.quantization = schema.QuantizationParametersT()
        image.quantization.scale, image.quantization.zeroPoint = [scale], [-128]
    float32 = schema.TensorType.FLOAT32
    graph = schema.SubGraphT()
    graph.tensors = [image, tensor("x", image.shape, float32), tensor("axes", (2,), schema.TensorType.INT32, 1),
                     tensor("means", (1, 3), float32), tensor("weights", WEIGHTS.shape, float32, 2),
                     tensor("logits", (1, 2), float32), tensor("probabilities", (1, 2), float32)]
    graph.inputs, graph.outputs = [0], [6]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    ops = schema.BuiltinOperator
    operations = [(ops.DEQUANTIZE if int8 else ops.CAST, [0], [1], None, None),
                  (ops.MEAN, [1, 2], [3], schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()),
                  (ops.FULLY_CONNECTED, [3, 4, -1], [5], schema.BuiltinOptions.FullyConnectedOptions,
                   schema.FullyConnectedOptionsT()),
                  (ops.SOFTMAX, [5], [6], schema.BuiltinOptions.SoftmaxOptions, schema.SoftmaxOptionsT())]
    operations[-1][-1].beta = 1.0
    model.operatorCodes, graph.operators = [], []
    for i, (code, reads, writes, kind, options) in enumerate(operations):
        model.operatorCodes.append(operator_code(code))
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = i, reads, writes
        if options:
            node.builtinOptionsType, node.builtinOptions = kind, options
        graph.operators.append(node)
    model.buffers = [buffer(), buffer(np.array([1, 2], np.int32)), buffer(WEIGHTS)]
    return model


def tensor(name, shape, kind, buffer=0):
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name, list(shape), kind, buffer
    return made


def operator_code(code):
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
    return made


def buffer(values=None):
    made = schema.BufferT()
    made.data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
    return made


def packed(model) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def outside(model) -> bytes:
    "The graph with its weights behind the flatbuffer."
    kept = [None if b.data is None else bytes(b.data) for b in model.buffers]
    for b, data in zip(model.buffers, kept, strict=True):
        b.data, b.offset, b.size = None, *((0, 0) if data is None else (2, len(data)))
    at = -(-len(packed(model)) // 16) * 16
    tail = bytearray()
    for b, data in zip(model.buffers, kept, strict=True):
        if data is not None:
            b.offset = at + len(tail)
            tail += data + bytes(-len(data) % 16)
    return packed(model).ljust(at, b"\0") + bytes(tail)


def file(graph=None, **facts) -> bytes:
    return with_facts(packed(parts()) if graph is None else graph, {**FACTS, **facts})
