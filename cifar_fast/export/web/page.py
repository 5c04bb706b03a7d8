"""A model as one HTML file that classifies images in a browser, without a network and without us."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast import __version__
from cifar_fast.data.images import SEEN, read_image
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.web.runtime import PACKAGE, VERSION
from cifar_fast.utils.text import printable

HERE = Path(__file__).parent
SERVED = HERE.parents[1] / "serve" / "static"
STYLES = (SERVED / "style.css", HERE / "page.css")
"The served page's look, and what differs."
SCRIPTS = (SERVED / "choose.js", HERE / "pixels.js", HERE / "page.js")


def page(
    name: str,  # of the model
    card: Card,
    onnx: bytes,  # model.onnx
    runtime: dict[str, bytes],  # see `runtime_files`
) -> str:
    "The file's content; the same for the same arguments. Raises ExportError."
    script, glue, wasm = (runtime[key] for key in runtime)
    scripts = [re.sub(r"\n//# sourceMappingURL=.*", "", script.decode()),  # a page without a network asks for nothing
               *(path.read_text("utf-8") for path in SCRIPTS)]
    style = "".join(path.read_text("utf-8") for path in STYLES)
    model = {"classes": card.vocab, "size": card.size, "mode": card.resize_mode, "check": known_prediction(card, onnx)}
    packed = {"wasm": wasm, "glue": glue, "onnx": onnx}
    data = [f'<script type="application/json" id="model">{json_text(model)}</script>',
            *(f'<script type="text/plain" id="{key}">{pack(value)}</script>' for key, value in packed.items())]
    values = {
        "policy": policy(scripts, style), "name": html.escape(printable(name)), "size": str(card.size),
        "mode": card.resize_mode, "seen": SEEN[card.resize_mode], "facts": html.escape(facts(name, card)),
        "runtime": f"Runs on {PACKAGE} {VERSION} (MIT licence). Made by cifar_fast {__version__}.",
        "style": style, "data": "\n".join(data), "scripts": "\n".join(map(inline, scripts)),
    }
    # In one pass: what is put in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], (HERE / "page.html").read_text("utf-8"))


def known_prediction(card: Card, onnx: bytes) -> dict:
    "An image and the model's probabilities for it, with which the page checks the browser that it runs in."
    import onnxruntime

    rows, columns = np.mgrid[:48, :64]
    noise = np.random.default_rng(0).integers(0, 64, (48, 64, 3))
    waves = np.stack([90 + 80 * np.sin(columns / 9), 90 + 80 * np.cos(rows / 7), 2.0 * (rows + columns)[:48]], 2)
    image = Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))
    image.save(file := io.BytesIO(), "png")
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    seen = read_image(image, card.size, card.resize_mode)
    (probabilities,) = session.run(["probabilities"], {"images": seen[None]})
    return {"png": base64.b64encode(file.getvalue()).decode(), "probabilities": probabilities[0].tolist()}


def facts(name: str, card: Card) -> str:
    "`final: cifar_final, 199,082 parameters, 10 classes, test accuracy 93.80%`."
    parts = [f"{card.audit.params:,} parameters" if card.audit else "", f"{len(card.vocab):,} classes",
             *(f"{label} {value:.2%}" for label, value in card.accuracies()[:1])]
    return f"{printable(name)}: {', '.join([printable(card.arch), *(p for p in parts if p)])}."


# ---------------------------------------------------------------- into HTML


def policy(scripts: list[str], style: str) -> str:
    "A Content-Security-Policy: these scripts alone run, and nothing can be fetched or sent."
    allowed = " ".join(f"'{sha(text)}'" for text in scripts)
    return (f"default-src 'none'; script-src {allowed} blob: 'wasm-unsafe-eval'; style-src '{sha(style)}'; "
            f"img-src data: blob:; media-src blob: mediastream:; base-uri 'none'; form-action 'none'")


def sha(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def inline(script: str) -> str:
    if "</script" in script.lower() or "<!--" in script:
        raise ExportError(f"{PACKAGE} {VERSION} cannot stand inside a page")
    return f"<script>{script}</script>"


def json_text(value) -> str:
    "JSON that cannot end the element it stands in."
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def pack(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
