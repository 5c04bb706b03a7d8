"""serve: response time with 32 clients at once, against decoding and predicting their images without a server.

The baseline decodes 32 images with `Predictor.read` and calls `Predictor.predict` once, with TTA as the page does. The
page also receives the images, computes Grad-CAM (a forward and a backward pass) and renders HTML. Any status but 200 is
an error. The server runs in its own process.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles

import numpy as np
from PIL import Image

from cifar_fast.bench.predict import EXPORT, subject
from cifar_fast.bench.startup import untrained_export
from cifar_fast.bench.synthetic import random_images
from cifar_fast.bench.timing import Bar, alternate, compare, note, seconds

CLIENTS = 32
REQUESTS = 8  # of each client per round, one after the other
SIDE = (640, 480)  # pixels of an image, a JPEG
BAR = Bar(at_most=True)
BOUNDARY = "cifar-fast-bench"


def measure(rounds: int) -> dict:
    exported, which = subject()
    image, waits = jpeg(), []
    with tempfile.TemporaryDirectory() as tmp:
        export = EXPORT if which == EXPORT else untrained_export(Path(tmp))[0]
        note(f"serve: a server with {which}")
        with server(export) as address:
            note(f"serve: {CLIENTS} clients, {REQUESTS} requests each a round")
            values = alternate({"bare": lambda: seconds(lambda: bare(exported, [image] * CLIENTS)),
                                "p95": lambda: load(address, image, waits)}, rounds)
    p50s, p95s = zip(*waits[-rounds:], strict=True)  # without the warm-up round
    against = f"{CLIENTS} images decoded and predicted without a server"
    return {"comparisons": {
        f"p50 of an image, {CLIENTS} clients": compare(list(p50s), values["bare"], "s", BAR, against),
        f"p95 of an image, {CLIENTS} clients": compare(list(p95s), values["bare"], "s", BAR, against),
    }, "notes": [f"{which}, on {exported.device}; JPEGs of {SIDE[0]}×{SIDE[1]}, {len(image):,} bytes; "
                 f"{rounds + 1} × {CLIENTS * REQUESTS} requests, none failed"]}


def jpeg() -> bytes:
    "An image with some detail, like a photograph."
    small = Image.fromarray(random_images(1)[0])
    file = io.BytesIO()
    small.resize(SIDE, Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
    return file.getvalue()


def bare(exported, images: list[bytes]) -> None:
    exported.predict(np.stack([exported.read(p) for p in images]), tta=True)


def load(address: tuple[str, int], image: bytes, waits: list[tuple[float, float]]) -> float:
    "All clients at once; appends (p50, p95) of their response times in seconds to `waits` and returns p95."
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = [s for client in pool.map(lambda _: client_times(address, image), range(CLIENTS)) for s in client]
    cuts = quantiles(times, n=20, method="inclusive")
    waits.append((cuts[9], cuts[18]))
    return cuts[18]


def client_times(address: tuple[str, int], image: bytes) -> list[float]:
    "Response times of one client in seconds. Raises RuntimeError for a status other than 200."
    head = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
            f"Content-Type: image/jpeg\r\n\r\n")
    body = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "X-Part": "1"}
    connection = HTTPConnection(*address, timeout=120)
    times = []

    def once():
        connection.request("POST", "/predict", body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200 or b"<table>" not in text:
            raise RuntimeError(f"the server answered {response.status}: {text[:200]!r}")

    for _ in range(REQUESTS):
        times.append(seconds(once))
    connection.close()
    return times


@contextmanager
def server(export: str) -> Iterator[tuple[str, int]]:
    "Host and port of a server in its own process. Raises RuntimeError if it does not start."
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    process = subprocess.Popen([sys.executable, "-m", "cifar_fast", "serve", export, "--port", "0"], text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths})
    try:
        line = process.stdout.readline()
        match = re.search(r"http://([\d.]+):(\d+)/", line)
        if match is None:
            raise RuntimeError(f"the server did not start: {line.strip() or 'no output'}")
        yield match[1], int(match[2])
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
