"""What asks a server in the tests, and a real one in a thread for those that need it."""

import io
import threading
from contextlib import contextmanager

import numpy as np
import uvicorn
from PIL import Image

from cifar_fast.export.card import Audited, Card, Metrics, Normalization
from cifar_fast.serve.server import listen

VOCAB = [f"class {i}" for i in range(9)] + ["<b>last</b>"]
CARD = Card(arch="cifar_sprint", vocab=VOCAB, normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3), split="test",
            metrics=Metrics(n=10_000, accuracy=0.9138, accuracy_tta=0.923),
            audit=Audited(params=122_730, macs=1, receptive_field=48), date="2026-11-21")
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
    "The address at which `app` answers."
    with listen("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
