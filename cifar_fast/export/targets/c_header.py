"""model.h: a graph of TFLite as a C array, with what a program for TensorFlow Lite Micro needs beside it."""

from __future__ import annotations

from collections.abc import Sequence

from cifar_fast import __version__
from cifar_fast.export.card import Card

TEMPLATE = """\
// {name}: an image of {size}x{size} pixels, red green blue, to probabilities of {n} classes.
// Made by cifar_fast {version}{weights}. {bytes:,} bytes of flash, {arena:,} bytes of arena (measured on x86).
//
//   alignas(16) static uint8_t arena[MODEL_ARENA];
//   static tflite::MicroMutableOpResolver<MODEL_OPERATORS> operators;  model_operators(operators);
//   static tflite::MicroInterpreter net(tflite::GetModel(model), operators, arena, MODEL_ARENA);
//   net.AllocateTensors();
//   for (int i = 0; i < MODEL_INPUT; i++) net.input(0)->data.int8[i] = rgb[i] - 128;
//   net.Invoke();  // net.output(0)->data.f[i] is the probability of model_classes[i]

#ifndef CIFAR_FAST_MODEL_H
#define CIFAR_FAST_MODEL_H

#define MODEL_SIDE {size}
#define MODEL_INPUT {input}  // bytes: rows of pixels, red green blue
#define MODEL_CLASSES {n}
#define MODEL_BYTES {bytes}
#define MODEL_ARENA {arena}
#define MODEL_OPERATORS {operators}

#ifdef __cplusplus
template <class Resolver> void model_operators(Resolver& r) {{
{adds}
}}
#define MODEL_ALIGN alignas(16)
#else
#define MODEL_ALIGN _Alignas(16)
#endif

static const char* const model_classes[MODEL_CLASSES] = {{
{classes}
}};

MODEL_ALIGN static const unsigned char model[MODEL_BYTES] = {{
{rows}
}};

#endif
"""

METHODS = {"PADV2": "PadV2", "BATCH_MATMUL": "BatchMatMul", "SQUARED_DIFFERENCE": "SquaredDifference"}
"Operations that TFLite Micro spells otherwise than `method` would."


def header(graph: bytes, card: Card, operators: Sequence[str], arena: int) -> str:
    "C11 and C++11."
    rows = (",".join(map(str, graph[i:i + 32])) + "," for i in range(0, len(graph), 32))
    return TEMPLATE.format(
        name=comment(card.name) or "A model", size=card.size, n=len(card.vocab), version=__version__,
        weights=f" from weights of sha256 {card.sha256[:12]}" if card.sha256 else "", bytes=len(graph), arena=arena,
        input=3 * card.size ** 2, operators=len(operators), adds="\n".join(f"  r.Add{method(o)}();" for o in operators),
        classes="\n".join(f"  {literal(name)}," for name in card.vocab), rows="\n".join(rows))


def method(operator: str) -> str:
    "`DepthwiseConv2D` of DEPTHWISE_CONV_2D."
    return METHODS.get(operator) or "".join(p.capitalize() for p in operator.split("_")).replace("2d", "2D")


def literal(text: str) -> str:
    "A C string; other characters than letters and digits as octal codes of UTF-8, which nothing after them changes."
    return '"' + "".join(chr(b) if chr(b).isalnum() and b < 128 or b in b" _-." else f"\\{b:03o}"
                         for b in text.encode()) + '"'


def comment(text: str) -> str:
    "A backslash would continue a comment on the next line."
    return "".join(c if c.isascii() and (c.isalnum() or c in " _-.,") else "_" for c in text)
