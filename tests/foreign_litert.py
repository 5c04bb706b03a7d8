"""Uses model.tflite, model.int8.tflite, model.micro.tflite and model.h as somebody else's program would.

    python tests/foreign_litert.py exports/NAME IMAGE…

Nothing of cifar_fast is imported. Exits with 1 where the files do not agree.
"""

import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from tflite_micro.python.tflite_micro import runtime

FILES = ("model.tflite", "model.int8.tflite", "model.micro.tflite")
folder, images = Path(sys.argv[1]), sys.argv[2:]


def litert(path, pixels):
    net = Interpreter(str(path))
    net.allocate_tensors()
    (image,) = net.get_input_details()
    if image["dtype"] == np.int8:
        scale, zero = image["quantization"]
        pixels = np.round(pixels / scale + zero).astype(np.int8)
    net.set_tensor(image["index"], pixels[None])
    net.invoke()
    return net.get_tensor(net.get_output_details()[0]["index"])[0]


def micro(graph, arena, pixels):
    net = runtime.Interpreter.from_bytes(graph, arena_size=arena)
    net.set_input((pixels ^ 128).view(np.int8)[None], 0)
    net.invoke()
    return net.get_output(0)[0]


header = (folder / "model.h").read_text("utf-8")
array = header[header.index("model[MODEL_BYTES] = {"):].partition("{")[2].partition("}")[0]
graph = bytes(map(int, array.strip().strip(",").split(",")))
arena, side = (int(re.search(rf"#define {name} (\d+)", header)[1]) for name in ("MODEL_ARENA", "MODEL_SIDE"))
if not (folder / "model.micro.tflite").read_bytes().startswith(graph):
    sys.exit("model.h holds another graph than model.micro.tflite")

same = 0
for name in images:
    pixels = np.asarray(Image.open(name).convert("RGB").resize((side, side), Image.BICUBIC))
    found = {file: litert(folder / file, pixels) for file in FILES}
    found["model.h"] = micro(graph, arena, pixels)
    labels = zipfile.ZipFile(folder / "model.int8.tflite").read("labels.txt").decode().splitlines()
    predicted = {file: labels[p.argmax()] for file, p in found.items()}
    print(f"{name}: {', '.join(f'{file} {label} {found[file].max():.1%}' for file, label in predicted.items())}")
    same += len(set(predicted.values())) == 1
    if np.abs(found["model.h"] - found["model.micro.tflite"]).max() > 0.1:
        sys.exit("TFLite Micro and LiteRT differ by more than 0.1")
assert not any(module.startswith("cifar_fast") for module in sys.modules)
print(f"all files agree on {same} of {len(images)} images")
sys.exit(same < 0.9 * len(images))
