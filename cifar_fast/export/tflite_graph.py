"""A TFLite graph rewritten: its weights in the flatbuffer itself, each at a multiple of 16 bytes.

Converters may put weights behind the flatbuffer, where TFLite Micro does not look: its outputs are then wrong, without
an error. Processors without unaligned reads need the multiples, which flatbuffers' own Python code does not keep.
"""

from __future__ import annotations

import numpy as np

from cifar_fast.export.tflite_file import judged

ALIGNMENT = 16
IDENTIFIER = b"TFL3"


def repacked(
    content: bytes,
    bare: bool = False,  # without names, signatures and notes, which a microcontroller has no use for
) -> bytes:
    "Raises ValueError where it would not be what it must."
    from ai_edge_litert.schema_py_generated import ModelT

    model = ModelT.InitFromPackedBuf(content)
    if bare:
        strip(model)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 say that there is nothing outside
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
        buffer.Pack = packer(buffer)
    builder = sharing_builder(len(content))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    result = bytes(builder.Output())
    require_aligned(result)
    return result


def sharing_builder(size: int):
    """A flatbuffers.Builder that writes equal vectors once.

    Each weight has a zero point of 8 bytes for every channel, all 0: a seventh of the file of a network for
    microcontrollers.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def CreateNumpyVector(self, x):
            key = x.dtype.str, x.tobytes()
            if key not in written:
                written[key] = super().CreateNumpyVector(x)
            return written[key]

    written: dict[tuple[str, bytes], int] = {}
    return Builder(size)


def packer(buffer):
    "What writes a buffer as the schema wants it, instead of its own method."
    from ai_edge_litert import schema_py_generated as schema

    def pack(builder) -> int:
        if buffer.data is None or not len(buffer.data):
            schema.BufferStart(builder)
            return schema.BufferEnd(builder)
        content = np.asarray(buffer.data, np.uint8).tobytes()
        builder.StartVector(1, len(content), ALIGNMENT)
        builder.head = builder.head - len(content)
        builder.Bytes[builder.head:builder.head + len(content)] = content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)
    return pack


def strip(model) -> None:
    (graph,) = model.subgraphs
    for i, tensor in enumerate(graph.tensors):
        if i not in graph.inputs and i not in graph.outputs:
            tensor.name = None
    model.buffers = list(model.buffers)
    for entry in model.metadata or ():
        model.buffers[entry.buffer].data = None
    model.metadata, model.signatureDefs, model.description, graph.name = [], [], None, None


def require_aligned(content: bytes) -> None:
    found = judged(content)
    if found.outside or any(start % ALIGNMENT for start, _ in found.weights):
        raise ValueError("the graph could not be packed: its weights are not where they must be")
