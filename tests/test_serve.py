"""The server without a browser: what it answers, what it refuses, and that no file of the machine is behind it."""

import asyncio
import html
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rows import made as made_row
from serving import served
from starlette.testclient import TestClient

from cifar_fast.archs import create_arch
from cifar_fast.cli import main
from cifar_fast.data.pictures import read_picture
from cifar_fast.inference import Exported, load_export, save_export
from cifar_fast.serve import looking, upload
from cifar_fast.serve.app import create_app
from cifar_fast.serve.guard import Guard, is_loopback
from cifar_fast.serve.server import ServeError, listen, url, warning

VOCAB = [f"class {i}" for i in range(9)] + ["<b>last</b>"]
CARD = {"arch": "cifar_sprint", "vocab": VOCAB, "normalize": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "data": {"name": "made up", "fingerprint": ""}, "test": {"accuracy": 0.9138, "accuracy_tta": 0.923},
        "audit": {"params": 122_730}, "date": "2026-11-21"}
HOST = "http://127.0.0.1:8000"
XSS = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    stem = tmp_path_factory.mktemp("made") / "net"
    save_export(stem, create_arch("cifar_sprint", 10), CARD, pickle=False)
    return stem


@pytest.fixture
def folder(made, tmp_path):
    "Two runs, one with a figure and a report; a broken card; secrets beside them and above."
    here = tmp_path / "exports"
    shutil.copytree(made.parent, here)
    (here / "other.json").write_text(json.dumps(json.loads((here / "net.json").read_text()) | {"date": "2020-01-01"}))
    (here / "broken.json").write_text('{"format": 1')
    (here / "net").mkdir()
    Image.new("RGB", (30, 20)).save(here / "net" / "history.png")
    (here / "net" / "report.html").write_text("<!doctype html><title>Report</title><p>A report</p>")
    for secret in (tmp_path / "secret.png", here / "net" / "secret.txt", here / "secret.txt", here / "net" / ".lock"):
        secret.write_text("SECRET")
    return here


@pytest.fixture
def client(folder):
    return TestClient(create_app(load_export(folder / "net"), "net", folder), base_url=HOST)


def picture(kind="png", size=(60, 40)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def post(client, *files, part=True, **kw):
    given = [("pictures", (name, content, "image/png")) for name, content in files]
    return client.post("/predict", files=given, headers={"X-Part": "1"} if part else {}, **kw)


def bomb(side) -> bytes:
    "A PNG of a few bytes that claims to be very large."
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- pictures


def test_a_picture_is_answered_as_predict_answers_it(client, folder):
    net = load_export(folder / "net")
    square = read_picture(picture())
    plain, mirrored = net.predict(square[None])[0], net.predict(square[None], tta=True)[0]
    answer = post(client, ("one.png", picture()))
    assert answer.status_code == 200
    found = re.findall(r"<th scope=\"row\">(.*?)</th>.*?<td>([\d.]+).%</td><td>([\d.]+).%</td>", answer.text)
    order = plain.argsort()[::-1]
    assert [name for name, *_ in found] == [VOCAB[i].replace("<", "&lt;").replace(">", "&gt;") for i in order]
    assert [float(p) for _, p, _ in found] == pytest.approx(100 * plain[order], abs=0.06)
    assert [float(p) for *_, p in found] == pytest.approx(100 * mirrored[order], abs=0.06)
    assert looking.data_uri(square) in answer.text and "<b>last" not in answer.text


def test_several_and_bad_ones_are_answered_by_name(client):
    answer = post(client, ("a.png", picture()), ("b.jpg", picture("jpeg")), ("no.png", b"no picture"),
                  ("empty.png", b""))
    assert answer.status_code == 200 and answer.text.count('class="view"') == 2
    for name, reason in (("no.png", "not a picture in a format known here"), ("empty.png", "is empty (0 bytes)")):
        assert re.search(rf'card bad"><h2[^>]*>{name}</h2><p>It [^<]*{re.escape(reason)}', answer.text), name
    assert "2 pictures could not be read" in answer.text


def test_no_answer_is_shown_that_is_no_number(folder):
    net = load_export(folder / "net")
    with torch.no_grad():
        net.model.head.fc.weight.fill_(3e38)
    answer = post(TestClient(create_app(net, "net", folder), base_url=HOST), ("one.png", picture()))
    assert answer.status_code == 422 and "answers that are no numbers" in answer.text and "nan" not in answer.text


def test_a_bad_one_alone_is_422_and_none_400(client):
    assert post(client, ("no.png", b"no picture")).status_code == 422
    assert post(client, ("", b"")).status_code == 400
    assert client.post("/predict", data={"x": "y"}).status_code == 415
    for boundary in ("", "; boundary=x"):
        broken = client.post("/predict", content=b"--x\r\nrubbish\r\n",
                             headers={"content-type": f"multipart/form-data{boundary}"})
        assert broken.status_code == 400 and "broken" in broken.text


def test_pixels_are_counted_before_decoding(client):
    answer = post(client, ("large.png", bomb(9_000)), ("larger.png", bomb(30_000)))
    assert answer.status_code == 422 and "9000 x 9000 pixels" in answer.text and "too many pixels" in answer.text
    assert ".." not in answer.text


def test_a_picture_over_the_limit_is_named_and_those_beside_it_answered(client, monkeypatch):
    monkeypatch.setattr(upload, "MAX_PICTURE", 50_000)
    answer = post(client, ("large.png", b"x" * 200_000), ("small.png", picture()))
    assert answer.status_code == 200 and "large.png" in answer.text and "larger than" in answer.text
    assert answer.text.count('class="view"') == 1


@pytest.mark.parametrize("limit, value, status, said", [
    ("MAX_PICTURES", 2, 413, "more than 2 pictures"), ("MAX_REQUEST", 2_000, 413, "together"),
    ("MAX_HELD", 2_000, 503, "Try again"),
])
def test_limits_of_a_request(client, monkeypatch, limit, value, status, said):
    monkeypatch.setattr(upload, limit, value)
    for _ in range(3):  # nothing is held for long
        answer = post(client, *[(f"{i}.png", picture()) for i in range(3)])
        assert answer.status_code == status and said in answer.text and "<html" not in answer.text
    assert "<html" in post(client, *[(f"{i}.png", picture()) for i in range(3)], part=False).text
    monkeypatch.undo()
    assert post(client, ("a.png", picture())).status_code == 200


def test_the_limit_holds_whatever_the_length_says(folder):
    "A body that goes on and on with a small Content-Length: what is kept is capped, what is read too."
    app = create_app(load_export(folder / "net"), "net", folder)
    head = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a%d.png"\r\n\r\n'
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
    "A picture of several MB stays in memory, where Starlette alone would roll it over into a file."
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *a, **k: pytest.fail("a file was opened"))
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda *a: pytest.fail("rolled over"))
    assert post(client, ("large.bmp", picture("bmp", (1200, 1000)))).status_code == 200


@pytest.mark.parametrize("name", [XSS, '"><script>alert(1)</script>', "ünï ☃.png", "../../etc/passwd", "x" * 3000,
                                  "a\tb"])
def test_names_are_shown_as_text(client, name):
    answer = post(client, (name, picture()), (name, b"bad"), part=False)
    assert answer.status_code == 200
    assert "<img src=x" not in answer.text and "<script>alert" not in answer.text


def test_the_page_without_scripts_holds_the_answer(client):
    answer = post(client, ("one.png", picture()), part=False)
    assert answer.text.startswith("<!doctype html>") and 'class="view"' in answer.text and 'id="form"' in answer.text
    assert client.get("/predict").text == client.get("/").text  # opened anew
    assert "There is no such page." in client.get("/nothing").text and client.put("/predict").status_code == 405


def test_a_net_of_which_little_is_known_and_with_many_classes(folder):
    "As a .pkl leaves it: classes and normalisation alone."
    vocab = [f"kind {i}" for i in range(120)]
    net = Exported(create_arch("cifar_sprint", 120).eval(), {"vocab": vocab, "normalize": CARD["normalize"]},
                   torch.device("cpu"))
    client = TestClient(create_app(net, "own", folder), base_url=HOST)
    assert "120 classes" in client.get("/").text
    answer = post(client, ("one.png", picture()))
    assert answer.text.count('scope="row"') == 50 and "70 more classes" in answer.text


def test_many_at_once(folder):
    "32 side by side: all answered, and alike."
    with served(create_app(load_export(folder / "net"), "net", folder)) as address, ThreadPoolExecutor(32) as pool:
        given = {"pictures": ("one.png", picture(), "image/png")}
        answers = list(pool.map(lambda _: httpx2.post(f"{address}/predict", files=given, timeout=60), range(64)))
    assert {a.status_code for a in answers} == {200} and len({a.text for a in answers}) == 1


# ---------------------------------------------------------------- runs and files


def test_runs_are_listed_the_newest_first_and_broken_ones_named(client, folder):
    text = client.get("/runs").text
    assert text.index("/runs/net") < text.index("/runs/other") < text.index("Not readable")
    assert "91.38\u00a0%" in text and "92.30\u00a0%" in text and "122,730" in text
    assert "broken.json cannot be read" in text and str(folder) not in text


def test_a_run_shows_what_it_left_and_says_what_it_has_not(client):
    text = client.get("/runs/net").text
    assert "/runs/net/history.png" in text and "/runs/net/report" in text and "confusion.png" not in text
    assert client.get("/runs/net/history.png").headers["content-type"] == "image/png"
    assert "python -m cifar_fast report other" in client.get("/runs/other").text
    assert "python -m cifar_fast compare" in client.get("/compare").text


def test_the_comparison_is_shown_where_it_is(client, folder):
    assert client.get("/compare.png").status_code == 404
    Image.new("RGB", (8, 8)).save(folder / "compare.png")
    assert "/compare.png" in client.get("/compare").text and client.get("/compare.png").status_code == 200


def test_the_comparison_is_a_table_too(client, folder):
    rows = [made_row(), made_row(recipe="<b>mine</b>", recipe_id="b", accuracy="0.95", parameters="1234")]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    text = client.get("/compare").text
    assert text.index("95.00") < text.index("90.00") and "192,642" in text and "image and mirror" in text
    assert "<b>" not in text and '<th scope="col">accuracy %</th>' in text


@pytest.mark.parametrize("text, told", [
    (b"no,such\n1,2\n", "results.csv: its first line"), (b"recipe,accuracy\n", "results.csv holds no run yet"),
    (b"recipe,accuracy\nfinal,1_000\n", "is no number"), (b"recipe\n\xff\n", "cannot be read as CSV"),
    (None, "results.csv: No such file")])
def test_a_table_that_cannot_be_made_says_why_and_not_where(folder, monkeypatch, text, told):
    monkeypatch.chdir(folder.parent)  # as a user names it: exports/net
    here = folder.relative_to(folder.parent)
    client = TestClient(create_app(load_export(here / "net"), "net", here), base_url=HOST)
    (folder / "results.csv").write_bytes(text or b"")
    if text is None:
        monkeypatch.setattr("cifar_fast.serve.browse._compared", lambda *a: open(here / "gone"))
    answer = client.get("/compare")
    assert answer.status_code == 200 and "could not be made" in answer.text and told in html.unescape(answer.text)
    assert str(folder.parent) not in answer.text


def test_a_report_may_run_nothing_and_fetch_nothing(client):
    answer = client.get("/runs/net/report")
    policy = answer.headers["content-security-policy"]
    assert "A report" in answer.text and "sandbox" in policy and "default-src 'none'" in policy
    assert "script-src" not in policy and "http" not in policy


@pytest.mark.parametrize("path", [
    "/runs/net/secret.txt", "/runs/net/.lock", "/runs/net/..%2fsecret.txt", "/runs/..%2f..%2fsecret.png/report",
    "/runs/net/%2e%2e%2f%2e%2e%2fsecret.png", "/runs/net/../../secret.png", "/runs/%2e%2e/secret.png",
    "/runs/net/%2fetc%2fpasswd", "/runs/%2fetc/passwd", "/runs/net/..%5csecret.txt", "/runs/net/history.png%00.txt",
    "/runs/net%00/history.png", "/runs/broken/history.png", "/runs/./history.png", "/static/../app.py",
    "/static/%2e%2e%2fapp.py", "/static/..%2f..%2fcli.py", "/exports/net.json", "/net.json", "/secret.txt",
    "//etc/passwd", "/runs/net/net.json", "/runs/" + "a" * 5000 + "/report", "/runs/%ff%fe/report", "/compare.png/x",
])
def test_no_other_file_is_reachable(client, path):
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (404, 400, 307) and "SECRET" not in answer.text and "root:" not in answer.text


def test_links_that_lead_out_are_not_followed(client, folder, tmp_path):
    (folder / "net" / "confusion.png").symlink_to(tmp_path / "secret.png")
    (folder / "compare.png").symlink_to(tmp_path / "secret.png")
    (folder / "evil.json").symlink_to(tmp_path / "secret.png")
    (tmp_path / "rows.csv").write_text("recipe,accuracy\nSECRET,0.5\n")
    (folder / "results.csv").symlink_to(tmp_path / "rows.csv")
    assert "SECRET" not in client.get("/compare").text
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "report.html").write_text("SECRET")
    (folder / "other").symlink_to(tmp_path / "outside")
    (folder / "net" / "learning_rate.png").symlink_to(folder / "net" / "learning_rate.png")  # in a circle
    for path in ("/runs/net/confusion.png", "/compare.png", "/runs/other/report", "/runs/net/learning_rate.png"):
        assert client.get(path).status_code == 404, path
    assert "evil" not in client.get("/runs").text and "confusion" not in client.get("/runs/net").text
    (folder / "net" / "published.png").symlink_to(folder / "net" / "history.png")  # within is within
    assert client.get("/runs/net/published.png").status_code == 200


def test_cards_of_strangers_are_shown_as_text(client, folder):
    card = json.loads((folder / "net.json").read_text())
    strange = {"date": "<script>alert(1)</script>\ud800", "test": {"accuracy": "much", "accuracy_tta": float("nan")},
               "audit": [], "epochs": True, "protocol": 7, "seconds": None}
    (folder / "<b>.json").write_text(json.dumps(card | strange))
    assert "<script>alert" not in client.get("/runs").text
    answer = client.get("/runs/%3Cb%3E")
    assert answer.status_code == 200 and "<b>" not in answer.text


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "192.168.0.7:8000",
                                  "[::2]:8000"])
def test_a_stranger_s_name_for_this_machine_is_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_this_machine_by_its_names(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("headers, allowed", [
    ({}, True), ({"origin": HOST}, True), ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
    ({"origin": "https://evil.example"}, False), ({"origin": "null"}, False), ({"sec-fetch-site": "cross-site"}, False),
    ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9000"}, False), ({"sec-fetch-site": "none"}, False),
    ({"sec-fetch-site": "cross-site", "origin": HOST}, False), ({"origin": "http://127.0.0.1:9000"}, False),
])
def test_pictures_come_from_the_own_page_alone(client, headers, allowed):
    answer = client.post("/predict", files=[("pictures", ("a.png", picture(), "image/png"))], headers=headers)
    assert answer.status_code == (200 if allowed else 403)


@pytest.mark.parametrize("path", ["/", "/runs", "/nothing", "/runs/net/history.png", "/static/page.js", "/predict"])
def test_every_answer_has_the_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY" and "default-src 'none'" in headers["content-security-policy"]


def test_a_failure_of_ours_has_them_too(folder, monkeypatch):
    monkeypatch.setattr("cifar_fast.serve.browse.runs", lambda folder: 1 / 0)
    client = TestClient(create_app(load_export(folder / "net"), "net", folder), base_url=HOST,
                        raise_server_exceptions=False)
    answer = client.get("/runs")
    assert answer.status_code == 500 and answer.headers["x-frame-options"] == "DENY" and "Traceback" not in answer.text


def test_pages_name_no_other_place(client):
    "Nothing is loaded from elsewhere, nothing stands inline that the policy would stop."
    for path in ("/", "/runs", "/runs/net", "/compare", "/nothing", "/static/style.css", "/static/page.js"):
        text = client.get(path).text
        assert not re.search(r"https?://|@import|url\(", text), path
        assert not re.search(r" on\w+=|style=|<style|<script>", text), path
    for path in ("/", "/runs", "/nothing"):
        text = client.get(path).text
        assert '<html lang="en">' in text and "<title>" in text and 'rel="icon"' in text and "viewport" in text


def test_who_is_where():
    assert all(is_loopback(h) for h in ("127.0.0.1", "localhost", "::1", "127.8.8.8"))
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "192.168.0.7", "example.org", ""))
    assert warning("127.0.0.1") is None and "over the network" in warning("0.0.0.0")
    everywhere = Guard(None, "0.0.0.0")
    assert everywhere.known("192.168.0.7:8000") and everywhere.known(socket.gethostname())
    assert not everywhere.known("evil.example:8000")
    assert Guard(None, "box.lan").known("box.lan:80") and not Guard(None, "box.lan").known("192.168.0.7")


# ---------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart():
    "WCAG AA: 4.5 for text, 3 for the edges of what is used."
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (Path(looking.__file__).parent / "static" / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)
    assert light.keys() == dark.keys()
    for scheme in (light, dark):
        for text in ("text", "quiet", "accent", "bad"):
            for ground in ("page", "card", "sunk"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5
        for edge, ground in (("edge", "page"), ("edge", "card"), ("accent", "page"), ("accent", "card"),
                             ("bad-line", "page"), ("bad-line", "card")):
            assert contrast(scheme[edge], scheme[ground]) >= 3, (edge, ground)


# ---------------------------------------------------------------- the command


def test_a_taken_port_is_told_with_the_next_step(capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url(taken, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert main(["serve", "exports/nothing", "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is taken" in (err := capsys.readouterr().err) and "--port 0" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("args, named", [
    (["exports/nothing", "--port", "0"], "no export exports/nothing"), (["x", "--port", "70000"], "1 to 65535"),
    (["x", "--host", "no such host"], "127.0.0.1 is this machine"), (["x", "--host", "203.0.113.9"], "127.0.0.1"),
])
def test_bad_input_is_refused(args, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *args]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1, err


def test_addresses():
    with pytest.raises(ServeError, match="65535"):
        listen("127.0.0.1", -1)
    with listen("localhost", 0) as sock:
        assert url(sock, "localhost").startswith("http://localhost:")
        assert url(sock, "::1").startswith("http://[::1]:") and "127.0.0.1" in url(sock, "0.0.0.0")


def test_it_says_where_it_is_and_ctrl_c_ends_it(folder, capsys):
    "The command as it is typed: it answers, warns where others can reach it, and leaves nothing behind."
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    before, answers = sorted(folder.rglob("*")), []

    def ask():
        for _ in range(100):
            try:
                answers.append(httpx2.get(f"http://127.0.0.1:{port}/", timeout=5).text)
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ask, daemon=True).start()
    assert main(["serve", str(folder / "net"), "--port", str(port), "--host", "0.0.0.0"]) == 130
    out, err = capsys.readouterr()
    assert "What does the net see?" in answers[0]
    assert f"net at http://127.0.0.1:{port}/" in out and "over the network" in err and "Traceback" not in err
    assert sorted(folder.rglob("*")) == before
