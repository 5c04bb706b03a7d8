"""Predictions for uploaded images, and the limits of an upload."""

import asyncio
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest
import torch
from serving import CARD, HOST, VOCAB, XSS, image, post, served
from starlette.testclient import TestClient

from cifar_fast.data.images import read_image
from cifar_fast.export.predictor import Predictor, load_export
from cifar_fast.models import create_model
from cifar_fast.serve import classify, upload
from cifar_fast.serve.app import create_app


def bomb(side) -> bytes:
    "A PNG of a few bytes that claims to be very large."
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_predictions_are_those_of_predict(client, folder):
    net = load_export(folder / "net")
    square = read_image(image())
    plain, mirrored = net.predict(square[None])[0], net.predict(square[None], tta=True)[0]
    response = post(client, ("one.png", image()))
    assert response.status_code == 200
    found = re.findall(r"<th scope=\"row\">(.*?)</th>.*?<td>([\d.]+).%</td><td>([\d.]+).%</td>", response.text)
    order = plain.argsort()[::-1]
    assert [name for name, *_ in found] == [VOCAB[i].replace("<", "&lt;").replace(">", "&gt;") for i in order]
    assert [float(p) for _, p, _ in found] == pytest.approx(100 * plain[order], abs=0.06)
    assert [float(p) for *_, p in found] == pytest.approx(100 * mirrored[order], abs=0.06)
    assert classify.data_uri(square) in response.text and "<b>last" not in response.text


def test_below_the_threshold_a_page_says_unknown_and_probabilities_have_their_temperature(folder):
    net = replace(load_export(folder / "net"), threshold=1.0, temperature=3.0)
    square = read_image(image())
    text = post(TestClient(create_app(net, "net", folder), base_url=HOST), ("one.png", image())).text
    assert "<strong>unknown</strong>" in text and "one.png: unknown, " in text
    most = re.search(r"<th scope=\"row\">.*?</th>.*?<td>([\d.]+).%</td>", text)[1]
    probs = (torch.from_numpy(net.logits(square[None])) / 3).softmax(1)
    assert float(most) == pytest.approx(100 * float(probs.max()), abs=0.06)


def test_where_left_and_right_differ_there_is_no_tta(folder):
    replace(CARD, recipe={"tta": False}, metrics=replace(CARD.metrics, accuracy_tta=None)).write(folder / "net")
    client = TestClient(create_app(load_export(folder / "net"), "net", folder), base_url=HOST)
    home, result = client.get("/").text, post(client, ("one.png", image()), part=False).text
    assert not re.search("TTA[:<]", home + result) and "Grad-CAM: " in home
    probabilities = re.findall(r"<th scope=\"row\">.*?</th>.*?<td>([\d.]+).%</td></tr>", result)
    assert len(probabilities) == len(VOCAB) and sum(map(float, probabilities)) == pytest.approx(100, abs=1)


def test_several_images_and_bad_ones_have_a_card_each(client):
    response = post(client, ("a.png", image()), ("b.jpg", image("jpeg")), ("no.png", b"no image"),
                  ("empty.png", b""))
    assert response.status_code == 200 and response.text.count('class="view"') == 2
    for name, reason in (("no.png", "not an image in a format known here"), ("empty.png", "is empty (0 bytes)")):
        assert re.search(rf'card bad"><h2[^>]*>{name}</h2><p>It [^<]*{re.escape(reason)}', response.text), name
    assert "no prediction for 2 images" in response.text


def test_a_non_finite_prediction_is_an_error(folder):
    net = replace(load_export(folder / "net"), folded=None)
    with torch.no_grad():
        net.model.head.fc.weight.fill_(3e38)
    response = post(TestClient(create_app(net, "net", folder), base_url=HOST), ("one.png", image()))
    assert response.status_code == 422 and "prediction is not finite" in response.text and "nan" not in response.text


def test_a_bad_one_alone_is_422_and_none_400(client):
    assert post(client, ("no.png", b"no image")).status_code == 422
    assert post(client, ("", b"")).status_code == 400
    assert client.post("/predict", data={"x": "y"}).status_code == 415
    for boundary in ("", "; boundary=x"):
        broken = client.post("/predict", content=b"--x\r\nrubbish\r\n",
                             headers={"content-type": f"multipart/form-data{boundary}"})
        assert broken.status_code == 400 and "damaged" in broken.text


def test_pixels_are_counted_before_decoding(client):
    response = post(client, ("large.png", bomb(9_000)), ("larger.png", bomb(30_000)))
    assert response.status_code == 422 and "9000 x 9000 pixels" in response.text and "too many pixels" in response.text
    assert ".." not in response.text


def test_an_image_over_the_limit_is_named_and_the_others_classified(client, monkeypatch):
    monkeypatch.setattr(upload, "MAX_IMAGE", 50_000)
    response = post(client, ("large.png", b"x" * 200_000), ("small.png", image()))
    assert response.status_code == 200 and "large.png" in response.text and "larger than" in response.text
    assert response.text.count('class="view"') == 1


@pytest.mark.parametrize("limit, value, status, words", [
    ("MAX_IMAGES", 2, 413, "2 images at most"), ("MAX_REQUEST", 2_000, 413, "together"),
    ("MAX_HELD", 2_000, 503, "Try again"),
])
def test_limits_of_a_request(client, monkeypatch, limit, value, status, words):
    monkeypatch.setattr(upload, limit, value)
    for _ in range(3):  # nothing is held for long
        response = post(client, *[(f"{i}.png", image()) for i in range(3)])
        assert response.status_code == status and words in response.text and "<html" not in response.text
    assert "<html" in post(client, *[(f"{i}.png", image()) for i in range(3)], part=False).text
    monkeypatch.undo()
    assert post(client, ("a.png", image())).status_code == 200


def test_the_limit_holds_whatever_the_length_says(folder):
    "A body that goes on and on with a small Content-Length: what is kept is capped, what is read too."
    app = create_app(load_export(folder / "net"), "net", folder)
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a%d.png"\r\n\r\n'
    read, sent = 0, []

    async def receive():
        nonlocal read
        chunk = (b"\r\n" + head % read if read % 10 == 0 else b"") + b"y" * 2**21
        read += 1
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8000"), (b"content-length", b"100"),
               (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
             "headers": headers, "scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
             "http_version": "1.1", "root_path": ""}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "MAX_DRAINED", 2**26)
        asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413 and read * 2**21 < upload.MAX_REQUEST + 2**26 + 2**23


def test_nothing_is_written_to_the_disk(client, monkeypatch):
    "An image of several MB stays in memory, where Starlette alone would roll it over into a file."
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *a, **k: pytest.fail("a file was opened"))
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda *a: pytest.fail("rolled over"))
    assert post(client, ("large.bmp", image("bmp", (1200, 1000)))).status_code == 200


@pytest.mark.parametrize("name", [XSS, '"><script>alert(1)</script>', "ünï ☃.png", "../../etc/passwd", "x" * 3000,
                                  "a\tb"])
def test_names_are_shown_as_text(client, name):
    response = post(client, (name, image()), (name, b"bad"), part=False)
    assert response.status_code == 200
    assert "<img src=x" not in response.text and "<script>alert" not in response.text


def test_the_page_without_scripts_holds_the_prediction(client):
    response = post(client, ("one.png", image()), part=False)
    assert response.text.startswith("<!doctype html>")
    assert 'class="view"' in response.text and 'id="form"' in response.text
    assert client.get("/predict").text == client.get("/").text  # opened anew
    assert "There is no such page." in client.get("/nothing").text and client.put("/predict").status_code == 405


def test_a_model_with_many_classes_and_a_short_card(folder):
    "As a .pkl leaves it: classes and normalisation alone."
    vocab = [f"kind {i}" for i in range(120)]
    net = Predictor(create_model("cifar_sprint", 120).eval(), vocab, CARD.normalize, torch.device("cpu"))
    client = TestClient(create_app(net, "own", folder), base_url=HOST)
    assert "120 classes" in client.get("/").text
    response = post(client, ("one.png", image()))
    assert response.text.count('scope="row"') == 50 and "70 more classes" in response.text


def test_many_at_once(folder):
    "32 side by side: all answered, and alike."
    with served(create_app(load_export(folder / "net"), "net", folder)) as address, ThreadPoolExecutor(32) as pool:
        given = {"images": ("one.png", image(), "image/png")}
        responses = list(pool.map(lambda _: httpx2.post(f"{address}/predict", files=given, timeout=60), range(64)))
    assert {r.status_code for r in responses} == {200} and len({r.text for r in responses}) == 1
