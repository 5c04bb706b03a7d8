"""Clients that go, wait or never finish: they hold up no other, and no signal."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from interrupts import interrupt
from serving import UPLOAD, connect, form, image, process, received, served

from cifar_fast.export.predictor import load_export
from cifar_fast.serve import connections
from cifar_fast.serve.app import create_app
from cifar_fast.serve.classify import Classifier

SLOW = UPLOAD % 10**6 + form(("a.png", image()))[:200]  # an upload of which the rest never arrives


@pytest.fixture
def decoded(monkeypatch):
    "Names of the images that were decoded; each one waits for `decoded.proceed`, `decoded.started` says it does."
    class Decoded(list):
        started, proceed = threading.Event(), threading.Event()

    names, decode = Decoded(), Classifier.decode

    def wait(classifier, upload):
        names.append(upload.name)
        names.started.set()
        assert names.proceed.wait(20)
        return decode(classifier, upload)

    monkeypatch.setattr(Classifier, "decode", wait)
    monkeypatch.setattr("cifar_fast.serve.app.AT_ONCE", 1)
    return names


@pytest.fixture
def port(folder):
    with served(create_app(load_export(folder / "net"), "net", folder)) as address:
        yield urlsplit(address).port


def send(port, *names):
    body = form(*((name, image()) for name in names))
    return connect(port, UPLOAD.replace(b"X-Part", b"Connection: close\r\nX-Part") % len(body), body)


def test_a_client_that_goes_while_it_waits_gives_its_turn_back(decoded, port):
    first = send(port, "first.png")
    assert decoded.started.wait(20)
    gone, last = send(port, "gone.png"), send(port, "last.png")
    time.sleep(0.3)  # both wait for their turn
    gone.close()
    time.sleep(0.3)  # the server sees that
    decoded.proceed.set()
    assert b"200 OK" in received(first) and b"200 OK" in received(last)
    assert decoded == ["first.png", "last.png"]


def test_a_client_that_goes_between_images_gives_its_turn_back(decoded, port):
    gone = send(port, "1.png", "2.png", "3.png")
    assert decoded.started.wait(20)
    gone.close()
    time.sleep(0.3)
    decoded.proceed.set()
    assert b"200 OK" in received(send(port, "last.png"))
    assert decoded == ["1.png", "last.png"]


WHOLE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "


@pytest.mark.parametrize("start, more", [(b"", b""), (HALF, b""), (HALF, b"x"), (WHOLE + HALF, b"x")],
                         ids=["nothing", "half", "half, and more now and then", "half of a second request"])
def test_headers_have_a_time_limit(port, monkeypatch, start, more):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    begin = time.monotonic()
    with connect(port, start) as sock, ThreadPoolExecutor(1) as pool:
        end = pool.submit(lambda: (received(sock), time.monotonic() - begin))
        while not end.done() and time.monotonic() < begin + 10:
            time.sleep(0.1)
            try:
                sock.sendall(more)
            except OSError:
                break
        text, seconds = end.result()
    assert 0.4 < seconds < 4, seconds  # a connection that is kept alive has 5 s
    assert (b"200 OK" in text) == (start not in (b"", HALF))


def test_a_body_may_take_longer_than_the_headers(port, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    body = form(("a.png", image()))
    with connect(port, UPLOAD.replace(b"X-Part", b"Connection: close\r\nX-Part") % len(body), body[:100]) as sock:
        time.sleep(0.8)
        sock.sendall(body[100:])
        assert b"200 OK" in received(sock)


@pytest.mark.parametrize("signals", [
    pytest.param([signal.SIGTERM], id="SIGTERM"), pytest.param([signal.SIGINT], id="Ctrl-C", marks=pytest.mark.slow),
    pytest.param([signal.SIGINT, signal.SIGINT], id="Ctrl-C twice", marks=pytest.mark.slow)])
def test_signals_with_uploads_under_way(made, signals):
    "The exit code is the signal's; no client delays the end for long, and those that send in time are answered."
    large, small = form(("large.bmp", image("bmp", (2500, 2000)))), form(("a.png", image()))
    with process(made) as (running, port):
        clients = [connect(port, data) for data in (b"", HALF, SLOW, SLOW, *[UPLOAD % len(large) + large] * 4)]
        in_time = connect(port, UPLOAD % len(small), small[:-1])
        time.sleep(0.5)
        running.send_signal(signals[0])
        in_time.sendall(small[-1:])
        for signum in signals[1:]:
            time.sleep(0.2)
            running.send_signal(signum)
        begin = time.monotonic()
        texts = [received(client) for client in (*clients, in_time)]
        assert time.monotonic() - begin < 3 * connections.GRACE_SECONDS
        out, err = running.communicate(timeout=60)
    code = running.returncode  # negative where Python had already ended
    assert (code if code >= 0 else 128 - code) == 128 + signals[0], err
    assert err.strip() == "interrupted" and not out
    if len(signals) == 1:
        assert b"200 OK" in texts[-1]


@pytest.mark.parametrize("seconds, signum", [(0.7, signal.SIGINT), (1.5, signal.SIGTERM), (3, signal.SIGINT)])
def test_signals_while_it_imports_or_loads_the_model(made, tmp_path, seconds, signum):
    code, _, err = interrupt(["serve", str(made), "--port", "0"], seconds, signum, tmp_path)
    assert code == 128 + signum and err.strip() == "interrupted"
