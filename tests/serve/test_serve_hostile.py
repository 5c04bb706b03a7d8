"""Names and values from files of others are shown as text on every page, whatever they hold."""

import csv
import html
import json
import logging
from dataclasses import replace

import pytest
from rows import made as made_row
from serving import HOST, image, post
from starlette.testclient import TestClient

from cifar_fast.export.predictor import load_export
from cifar_fast.serve import browse
from cifar_fast.serve.app import create_app

HOSTILE = "<script>alert(1)</script>\x1b[31m\x1b]0;title\x07\r\nSet-Cookie: a=1\u202e'\"&"


def write_rows(folder, *rows):
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def is_harmless(response) -> bool:
    text = html.unescape(response.text) + "".join(f"{k}: {v}" for k, v in response.headers.items())
    return ("<script>alert" not in response.text and "set-cookie" not in response.headers
            and not any(c in text for c in "\x1b\x07\r\u202e"))


@pytest.fixture
def hostile(folder):
    "A server whose model, classes, runs and results.csv have hostile names."
    texts = dict.fromkeys(("recipe", "settings", "date", "device", "data"), HOSTILE)
    write_rows(folder, made_row(), made_row(**texts, recipe_id="b"))
    card = json.loads((folder / "other" / "card.json").read_text())
    (folder / "other" / "card.json").write_text(json.dumps(card | {"arch": HOSTILE, "date": HOSTILE}))
    model = load_export(folder / "net")
    model = replace(model, vocab=[f"{i} {HOSTILE}" for i in range(10)],
                    card=replace(model.card, arch=HOSTILE, date=HOSTILE))
    return TestClient(create_app(model, HOSTILE, folder), base_url=HOST)


@pytest.mark.parametrize("path", ["/", "/runs", "/runs/net", "/runs/other", "/compare", "/runs/%3Cscript%3Ealert(1)%1b",
                                  "/runs/net/%1b%0d%0aSet-Cookie:%20a=1", "/%3Cscript%3Ealert(1)",
                                  "/runs/net/README.md"])
def test_names_on_pages(hostile, path):
    response = hostile.get(path)
    assert response.status_code in (200, 404) and is_harmless(response), response.text


@pytest.mark.parametrize("part", [True, False])
def test_names_of_classes_and_files(hostile, part):
    files = [("<script>alert(1)</script>\x1b[31m.png", image()), ("\x1b]0;x\x07<script>alert(1)", b"bad")]
    response = post(hostile, *files, part=part)
    assert response.status_code == 200 and is_harmless(response)


@pytest.mark.parametrize("column, value", [
    ("accuracy", "nan"), ("accuracy", "inf"), ("accuracy", "-inf"), ("accuracy", "1e999"), ("accuracy", "٠٫٩"),
    ("accuracy", "-0.5"), ("accuracy_tta", "７"), ("parameters", "-1"), ("parameters", "inf"), ("parameters", "١٢٣"),
    ("epochs", "-3"), ("epochs", "1e308"), ("seed", "nan"), ("seed", "²"), ("date", "\x00"), ("seconds", "-inf"),
])
def test_a_damaged_value_is_one_line_on_the_page(client, folder, caplog, column, value):
    write_rows(folder, made_row(), made_row(**{column: value}, recipe_id="b"))
    response = client.get("/compare")
    assert response.status_code == 200 and response.text.count("cannot be shown") <= 1
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_fault_of_ours_is_one_line_on_the_page_and_a_traceback_in_the_terminal(client, folder, caplog, monkeypatch):
    write_rows(folder, made_row())
    monkeypatch.setattr("cifar_fast.reporting.compare.table", lambda rows: 1 / 0)
    browse._compared.cache_clear()
    response = client.get("/compare")
    assert response.status_code == 200 and "ZeroDivisionError" in response.text
    assert [r.exc_info[0] for r in caplog.records] == [ZeroDivisionError]
