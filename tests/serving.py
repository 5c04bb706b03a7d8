"""Requests for the tests of the server, and a real server in a thread or a process."""

import io
import signal
import threading
from contextlib import contextmanager

import numpy as np
from PIL import Image

from cifar_fast.serve.connections import Server
from cifar_fast.serve.server import listen

VOCAB = [f"class {i}" for i in range(9)] + ["<b>last</b>"]
CARD = {"arch": "cifar_sprint", "vocab": VOCAB, "normalize": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "data": {"name": "made up", "fingerprint": ""}, "test": {"accuracy": 0.9138, "accuracy_tta": 0.923},
        "audit": {"params": 122_730}, "date": "2026-11-21"}
HOST = "http://127.0.0.1:8000"
XSS = "<img src=x onerror=alert(1)>.png"


def image(kind="png", size=(60, 40)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def post(client, *files, part=True, **kw):
    given = [("images", (name, content, "image/png")) for name, content in files]
    return client.post("/predict", files=given, headers={"X-Part": "1"} if part else {}, **kw)


@contextmanager
def served(app):
    "The address of a server of `app` in a thread."
    with listen("127.0.0.1", 0) as sock:
        server = Server(app)
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.stop(signal.SIGTERM)
            thread.join(10)
