"""Requests for the tests of the server, and a real server in a thread or a process."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Audited, Metrics, Normalization
from cifar_fast.serve.connections import Server
from cifar_fast.serve.server import listen

VOCAB = [f"class {i}" for i in range(9)] + ["<b>last</b>"]
CARD = Card(arch="cifar_sprint", vocab=VOCAB, normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3), split="test",
            metrics=Metrics(n=10_000, accuracy=0.9138, accuracy_tta=0.923),
            audit=Audited(params=122_730, macs=1, receptive_field=48), date="2026-11-21")
HOST = "http://127.0.0.1:8000"
XSS = "<img src=x onerror=alert(1)>.png"
UPLOAD = (b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Part: 1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
          b"Content-Length: %d\r\n\r\n")


def image(kind="png", size=(60, 40)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def post(client, *files, part=True, **kw):
    given = [("images", (name, content, "image/png")) for name, content in files]
    return client.post("/predict", files=given, headers={"X-Part": "1"} if part else {}, **kw)


def form(*files: tuple[str, bytes]) -> bytes:
    "The body of an upload."
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="%b"\r\n\r\n%b\r\n'
    return b"".join(head % (name.encode(), content) for name, content in files) + b"--x--\r\n"


def connect(port: int, *data: bytes) -> socket.socket:
    "A raw connection on which `data` was sent."
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(b"".join(data))
    return sock


def received(sock: socket.socket) -> bytes:
    "Everything until the server closes the connection."
    parts = []
    with suppress(ConnectionResetError):
        while part := sock.recv(2**16):
            parts.append(part)
    return b"".join(parts)


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


@contextmanager
def process(export: Path):
    "The command `serve` in a process, and its port."
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "cifar_fast", "serve", str(export), "--port", "0"]
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            yield running, int(re.search(r":(\d+)/", running.stdout.readline())[1])
        finally:
            running.kill()
