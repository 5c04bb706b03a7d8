"""The pages of runs, and that no other file of the machine is served."""

import html
import json
import os
import re
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image
from rows import made as made_row
from serving import CARD, HOST
from starlette.testclient import TestClient

from cifar_fast.export.card_file import read_card
from cifar_fast.export.predictor import load_export
from cifar_fast.serve.app import create_app


def test_runs_are_listed_the_newest_first_and_broken_ones_named(client, folder):
    text = client.get("/runs").text
    assert text.index("/runs/net") < text.index("/runs/other") < text.index("Unreadable")
    assert "91.38%" in text and "92.30%" in text and "122,730" in text
    assert "broken/card.json: it cannot be read" in text and str(folder) not in text


def test_a_run_shows_its_files_and_names_the_commands_for_missing_ones(client):
    text = client.get("/runs/net").text
    assert "/runs/net/history.png" in text and "/runs/net/report" in text and "confusion.png" not in text
    assert client.get("/runs/net/history.png").headers["content-type"] == "image/png"
    assert "python -m cifar_fast compare" in client.get("/compare").text


@pytest.mark.parametrize("start, argument", [("..", "other"), (".", "./other"), ("../..", "{above}/exports/other"),
                                             ("net", ".../exports/other")])
def test_the_command_for_a_missing_report_finds_the_run_from_where_the_server_was_started(client, folder, monkeypatch,
                                                                                         start, argument):
    monkeypatch.chdir(folder / start)
    command = argument.format(above=folder.parent.name)
    text = html.unescape(client.get("/runs/other").text)
    assert f"python -m cifar_fast report {command} creates it" in text.replace("</code>", "")


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


def test_the_comparison_has_balanced_accuracy_beside_tta(client, folder):
    rows = [made_row(accuracy_tta="0.91"), made_row(recipe="mine", recipe_id="b", balanced_accuracy="0.7",
                                                    accuracy_tta="0.85", settings="'data=/secret place/photos' lr=0.1")]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    text = html.unescape(client.get("/compare").text)
    heads = re.findall('<th scope="col">(.*?)</th>', text)
    assert heads[:4] == ["run", "accuracy %", "balanced %", "TTA %"] and heads[-1] == "data"
    assert re.findall("<td>(.*?)</td>", text)[:3] == ["90.00", "–", "91.00"] and "<td>70.00</td><td>85.00</td>" in text
    assert "/secret" not in text and "data=.../photos" in text and "lr=0.1" in text


def test_of_one_day_the_run_that_was_written_last_comes_first(client, folder):
    for name, when in (("net", 1), ("other", 2)):
        replace(read_card(folder / name), date="2026-11-30").write(folder / name)
        os.utime(folder / name / "card.json", (when, when))
    text = client.get("/runs").text
    assert text.index('"/runs/other"') < text.index('"/runs/net"')


@pytest.mark.parametrize("text, words", [
    (b"no,such\n1,2\n", "results.csv: its first line"), (b"recipe,accuracy\n", "holds no run yet"),
    (b"recipe,accuracy\nfinal,1_000\n", "is not a number"), (b"recipe,accuracy\nfinal,nan\n", "accuracy is 'nan'"),
    (b"recipe,seconds\nfinal,1e999\n", "seconds is '1e999'"), (b"recipe\n\xff\n", "cannot be read as CSV"),
    (None, "gone: Not a directory")])
def test_a_damaged_table_has_an_error_without_the_folder(folder, monkeypatch, text, words):
    monkeypatch.chdir(folder.parent)  # as a user names it: exports/net
    here = folder.relative_to(folder.parent)
    client = TestClient(create_app(load_export(here / "net"), "net", here), base_url=HOST)
    (folder / "results.csv").write_bytes(text or b"")
    if text is None:
        monkeypatch.setattr("cifar_fast.serve.browse._compared", lambda *a: open(here / "results.csv" / "gone"))
    response = client.get("/compare")
    assert response.status_code == 200 and "cannot be shown" in response.text and words in html.unescape(response.text)
    assert str(folder.parent) not in response.text


def test_a_report_may_run_nothing_and_fetch_nothing(client):
    response = client.get("/runs/net/report")
    policy = response.headers["content-security-policy"]
    assert "A report" in response.text and "sandbox" in policy and "default-src 'none'" in policy
    assert "script-src" not in policy and "http" not in policy


@pytest.mark.parametrize("path", [
    "/runs/net/secret.txt", "/runs/net/.lock", "/runs/net/..%2fsecret.txt", "/runs/..%2f..%2fsecret.png/report",
    "/runs/net/%2e%2e%2f%2e%2e%2fsecret.png", "/runs/net/../../secret.png", "/runs/%2e%2e/secret.png",
    "/runs/net/%2fetc%2fpasswd", "/runs/%2fetc/passwd", "/runs/net/..%5csecret.txt", "/runs/net/history.png%00.txt",
    "/runs/net%00/history.png", "/runs/broken/history.png", "/runs/./history.png", "/static/../app.py",
    "/static/%2e%2e%2fapp.py", "/static/..%2f..%2fcli.py", "/exports/net/card.json", "/net/card.json", "/secret.txt",
    "//etc/passwd", "/runs/net/card.json", "/runs/net/learner.pkl",
    "/runs/" + "a" * 5000 + "/report", "/runs/%ff%fe/report", "/compare.png/x",
])
def test_no_other_file_is_reachable(client, path):
    response = client.get(path, follow_redirects=False)
    assert response.status_code in (404, 400, 307) and "SECRET" not in response.text and "root:" not in response.text


def test_links_that_lead_out_are_not_followed(client, folder, tmp_path):
    (folder / "net" / "confusion.png").symlink_to(tmp_path / "secret.png")
    (folder / "runs.png").symlink_to(tmp_path / "secret.png")
    (folder / "evil").mkdir()
    (folder / "evil" / "card.json").symlink_to(tmp_path / "secret.png")
    (tmp_path / "rows.csv").write_text("recipe,accuracy\nSECRET,0.5\n")
    (folder / "results.csv").symlink_to(tmp_path / "rows.csv")
    assert "SECRET" not in client.get("/compare").text
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "report.html").write_text("SECRET")
    (folder / "other" / "report.html").symlink_to(tmp_path / "outside" / "report.html")
    (folder / "net" / "learning_rate.png").symlink_to(folder / "net" / "learning_rate.png")  # in a circle
    for path in ("/runs/net/confusion.png", "/compare.png", "/runs/other/report", "/runs/net/learning_rate.png"):
        assert client.get(path).status_code == 404, path
    assert "evil" not in client.get("/runs").text and "confusion" not in client.get("/runs/net").text
    (folder / "net" / "published.png").symlink_to(folder / "net" / "history.png")  # within is within
    assert client.get("/runs/net/published.png").status_code == 200


def test_cards_of_strangers_are_shown_as_text(client, folder):
    (folder / "<b>").mkdir()
    replace(CARD, date="<script>alert(1)</script>").write(folder / "<b>")
    for i, odd in enumerate([{"metrics": {"accuracy": "much"}}, {"audit": []}, {"date": ["x"]}, {"seconds": "<i>"}]):
        (folder / f"odd{i}").mkdir()
        (folder / f"odd{i}" / "card.json").write_text(json.dumps(CARD.to_dict() | odd))
    listed = client.get("/runs").text
    assert "<script>alert" not in listed and "<i>" not in listed and listed.count("restore the file") == 5
    response = client.get("/runs/%3Cb%3E")
    assert response.status_code == 200 and "<b>" not in response.text
