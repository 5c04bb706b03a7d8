"""Who may ask the server, and from which page."""

import re
import socket

import pytest
from serving import HOST, image
from starlette.testclient import TestClient

from cifar_fast.export.predictor import load_export
from cifar_fast.serve.app import create_app
from cifar_fast.serve.guard import Guard, is_loopback
from cifar_fast.serve.server import warning


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
def test_images_come_from_the_own_page_alone(client, headers, allowed):
    response = client.post("/predict", files=[("images", ("a.png", image(), "image/png"))], headers=headers)
    assert response.status_code == (200 if allowed else 403)


@pytest.mark.parametrize("path", ["/review/state", "/review/original/0"])
def test_no_other_site_starts_the_review(client, path, monkeypatch):
    monkeypatch.setattr("cifar_fast.serve.review.Review.open", None)  # not called
    for site in ("cross-site", "same-site"):
        response = client.get(path, headers={"sec-fetch-site": site})
        assert response.status_code == 403 and "own page" in response.text
    assert client.get("/review", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to it


@pytest.mark.parametrize("path", ["/", "/runs", "/nothing", "/runs/net/history.png", "/static/page.js", "/predict"])
def test_every_response_has_the_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY" and "default-src 'none'" in headers["content-security-policy"]


def test_a_failure_of_ours_has_them_too(folder, monkeypatch):
    monkeypatch.setattr("cifar_fast.serve.browse.runs", lambda folder: 1 / 0)
    client = TestClient(create_app(load_export(folder / "net"), "net", folder), base_url=HOST,
                        raise_server_exceptions=False)
    response = client.get("/runs")
    assert response.status_code == 500 and "Traceback" not in response.text
    assert response.headers["x-frame-options"] == "DENY"


def test_pages_name_no_other_place(client):
    "Nothing is loaded from elsewhere, nothing stands inline that the policy would stop."
    for path in ("/", "/runs", "/runs/net", "/compare", "/review", "/nothing", "/static/style.css", "/static/page.js",
                 "/static/choose.js", "/static/review.js"):
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
