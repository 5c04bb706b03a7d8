"""Sweeps in the browser: listed, refreshed while they run, and no other file of their folder is served."""

import json
import time
from dataclasses import replace

import pytest
from PIL import Image

from cifar_fast.sweep.snapshot import NAME, Snapshot, Trial

TRIALS = [Trial(0, "complete", {"lr": 0.0123456, "opt": "<b>sgd</b>"}, {"1": 0.5, "2": 0.7}, 0.7, 12.0),
          Trial(1, "pruned", {"lr": 0.5, "opt": "adamw"}, {"1": 0.1}, seconds=3.0, deaths=1),
          Trial(2, "running", {"lr": 0.02, "opt": "adamw"}, {"1": 0.4}), Trial(3, "waiting", {}, {}),
          Trial(4, "failed", {"lr": 0.02, "opt": "adamw"}, {}, error="out of memory")]
SWEEP = Snapshot("one", "final", ["valid=5000"], {"lr": "0.01..0.5:log", "opt": "sgd,adamw"}, "tpe", "median",
                 "running", TRIALS, {"lr": 0.9, "opt": 0.1})


@pytest.fixture
def sweeps(folder):
    for name, state, updated in (("one", "running", time.time()), ("old", "finished", 1.0), ("dead", "running", 2.0)):
        (folder / "sweeps" / name).mkdir(parents=True)
        replace(SWEEP, name=name, state=state, updated=updated).write(folder / "sweeps" / name)
    Image.new("RGB", (8, 8)).save(folder / "sweeps" / "one" / "history.png")
    (folder / "sweeps" / "one" / "report.html").write_text("<!doctype html>A report")
    (folder / "sweeps" / "one" / "study.db").write_text("SECRET")
    (folder / "sweeps" / "broken").mkdir()
    (folder / "sweeps" / "broken" / NAME).write_text('{"trials": [')
    return folder / "sweeps"


def test_sweeps_are_listed_the_newest_first_and_those_that_run_refresh(client, sweeps):
    response = client.get("/sweeps")
    assert response.text.index("/sweeps/one") < response.text.index("/sweeps/dead") < response.text.index("/sweeps/old")
    assert response.headers["refresh"] == "10" and "70.00%" in response.text and "broken/sweep.json" in response.text
    assert client.get("/sweeps/one").headers["refresh"] == "10"
    for done in ("old", "dead"):  # one was killed while it said that it runs
        assert "refresh" not in client.get(f"/sweeps/{done}").headers
    assert client.get("/sweeps/none").status_code == client.get("/sweeps/broken").status_code == 404


def test_a_sweep_shows_its_trials_the_best_first_and_its_figures(client, sweeps):
    text = client.get("/sweeps/one").text
    assert "&lt;b&gt;sgd" in text and "<b>sgd" not in text and "0.01235" in text
    assert text.index("complete") < text.index("pruned (a worker died)") < text.index("out of memory")
    assert "/sweeps/one/history.png" in text and "parallel.png" not in text and "1 more" in text
    assert client.get("/sweeps/one/history.png").headers["content-type"] == "image/png"
    assert "sandbox" in client.get("/sweeps/one/report").headers["content-security-policy"]


@pytest.mark.parametrize("path", ["one/study.db", "one/sweep.json", "one/..%2fone%2fstudy.db", "..%2fnet/report",
                                  "old/report", "one/parallel.png"])
def test_no_other_file_is_served(client, sweeps, path):
    response = client.get(f"/sweeps/{path}")
    assert response.status_code == 404 and "SECRET" not in response.text


@pytest.mark.parametrize("odd", [{"trials": [{"number": 0}]}, {"trials": 5}, {"nope": 1}, {"updated": "x"},
                                 {"space": 3}, {"trials": [dict(vars(TRIALS[0]), accuracy="much")]},
                                 {"trials": [dict(vars(TRIALS[0]), accuracy=10**400)]},
                                 {"trials": [dict(vars(TRIALS[0]), curve={"²": 0.5})]},
                                 {"trials": [dict(vars(TRIALS[0]), curve={"1" * 5000: 0.5})]}])
def test_a_strangers_snapshot_is_named_and_ends_nothing(client, sweeps, odd):
    path = sweeps / "old" / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    response = client.get("/sweeps")
    assert response.status_code == 200 and "old/sweep.json" in response.text


def test_without_sweeps_the_page_says_how_to_start_one(client):
    assert "python -m cifar_fast sweep final" in client.get("/sweeps").text
