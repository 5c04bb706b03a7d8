"""The review without a browser: its order, the table that it writes, who may ask."""

import csv
import io
import json
import re
import shlex
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from serving import HOST
from starlette.testclient import TestClient

from cifar_fast.data.sources import load_source
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Data, Normalization
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
from cifar_fast.models import create_model
from cifar_fast.serve.app import create_app
from cifar_fast.serve.decisions import LEFT_OUT, table_of

SPLITS = {"train": ("cat", "dog, small"), "test": ("cat", "dog, small")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A project: photographs of two classes, one of them a TIFF, and a run on them, never trained."
    project, rng = tmp_path_factory.mktemp("project"), np.random.default_rng(0)
    for split, classes in SPLITS.items():
        for name in classes:
            (folder := project / "photos" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 256, (50, 80, 3), np.uint8)).save(folder / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, (50, 80, 3), np.uint8)).save(project / "photos/train/cat/=3.tif")
    (project / "secret.png").write_bytes((project / "photos/test/cat/0.png").read_bytes())
    export(project / "exports" / "net", project / "photos")
    return project


def export(stem, data):
    torch.manual_seed(0)
    source = load_source(data)
    card = Card(arch="cifar_sprint", vocab=list(source.vocab), normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3),
                recipe={"data": str(data), "seed": 42}, data=Data(fingerprint=source.fingerprint))
    save_export(stem, create_model("cifar_sprint", len(source.vocab)), card, pickle=False)


@pytest.fixture
def project(made):
    yield made
    for path in (made / "exports").glob("*.labels*"):
        path.unlink()


class Client:
    "What review.js does."

    def __init__(self, project, run="net", host="127.0.0.1"):
        self.http = TestClient(create_app(load_export(project / "exports" / run), run, project / "exports", host),
                               base_url=HOST)
        found = re.search(r'data-token="([^"]+)"', self.http.get("/review").text)
        self.token = found and found[1]

    def state(self, split="all"):
        for _ in range(600):
            state = self.http.get(f"/review/state?split={split}").json()
            if state["state"] != "working":
                return state
            time.sleep(0.05)

    def post(self, path="answer", headers=None, **body):
        return self.http.post(f"/review/{path}", json=body, headers={"X-Review-Token": self.token} | (headers or {}))

    def decide(self, row, label):
        return self.post(row=row, answer=label).json()


def table(project, name="net"):
    with open(project / "exports" / f"{name}.labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_least_probable_label_comes_first_and_decisions_become_a_table(project):
    client, source, seen = Client(project), load_source(project / "photos"), []
    probs = np.concatenate([load_export(project / "exports" / "net").predict(a.images) for a in source.splits.values()])
    labels = np.concatenate([a.labels for a in source.splits.values()])
    names = [p for a in source.splits.values() for p in a.paths()]
    state = client.state()
    assert not list((project / "exports").glob("net.labels*"))  # nothing is written before a decision
    for decision in ("keep", 1, LEFT_OUT, 0):
        image = state["image"]
        seen.append((image["row"], decision))
        state = client.decide(image["row"], image["label"] if decision == "keep" else decision)
    order = np.argsort(-(1 - probs[np.arange(len(labels)), labels]), kind="stable")
    assert [row for row, _ in seen] == order[:4].tolist() and state["done"] == 4 and state["total"] == 13
    expected = [["file", "label", "split"]]
    given = {row: labels[row] if decision == "keep" else decision for row, decision in seen}
    for row, path in enumerate(names):
        if (label := given.get(row, labels[row])) != LEFT_OUT:
            relative = path.replace(f"{project}/", "../")
            expected.append([relative, source.vocab[label], "train" if row < 7 else "test"])
    assert table(project) == expected and len(expected) == 13
    read = load_source(project / "exports" / "net.labels.csv")
    assert not read.problems and set(read.splits) == {"train", "test"}
    for split, arrays in read.splits.items():
        assert [[path.replace(f"{project}/", "../"), read.vocab[label], split] for path, label in
                zip(arrays.paths(), arrays.labels, strict=True)] == [row for row in expected[1:] if row[2] == split]


def test_the_file_of_decisions_keeps_its_format(project):
    "So that reviews of older versions resume."
    client, vocab = Client(project), load_source(project / "photos").vocab
    first = client.state()["image"]
    second = client.decide(first["row"], LEFT_OUT)["image"]
    client.decide(second["row"], second["label"])
    saved = json.loads((project / "exports" / "net.labels.json").read_text("utf-8"))
    assert set(saved) == {"fingerprint", "tables", "answers"} and len(saved["tables"]) == 2
    assert [(a["row"], a["label"]) for a in saved["answers"]] == [(first["row"], None),
                                                                  (second["row"], vocab[second["label"]])]
    assert all(set(a) == {"row", "file", "label"} for a in saved["answers"])


def test_it_resumes_where_it_was_and_undoes_decisions(project):
    client = Client(project)
    first, again = client.state()["image"], []
    second = client.decide(first["row"], LEFT_OUT)["image"]
    client.decide(second["row"], 1 - second["label"])
    reopened = Client(project)
    state = reopened.state()
    assert (state["done"], state["relabelled"], state["left_out"]) == (2, 1, 1)
    assert state["image"]["row"] not in (first["row"], second["row"])
    for _ in range(3):
        state = reopened.post("undo").json()
        again.append(state["image"]["row"])
    assert again == [second["row"], first["row"], first["row"]] and not state["can_undo"]
    assert len(table(project)) == 14 and {split for *_, split in table(project)[1:]} == {"train", "test"}


def test_a_split_alone(project):
    client = Client(project)
    state = client.state("test")
    assert state["total"] == 6 and state["image"]["split"] == "test"


def test_a_table_that_somebody_changed_is_left_alone(project):
    client = Client(project)
    client.decide(client.state()["image"]["row"], LEFT_OUT)
    path = project / "exports" / "net.labels.csv"
    path.write_text(text := path.read_text("utf-8") + "mine.png,cat,train\n")
    state = Client(project).state()
    assert state["state"] == "problem" and "net.labels.csv was changed" in state["text"]
    assert path.read_text("utf-8") == text
    answer = client.post(row=state_of(client)["row"], answer=LEFT_OUT)  # by the server that was running meanwhile
    assert answer.status_code == 400 and "Not saved" in answer.json()["problem"]
    assert path.read_text("utf-8") == text and client.post("undo").status_code == 400


def test_two_reviews_of_one_run_do_not_overwrite_each_other(project):
    one, other = Client(project), Client(project)
    first, second = state_of(one), state_of(other)
    one.decide(first["row"], first["label"])  # kept, which leaves the table as it is
    log = (project / "exports" / "net.labels.json").read_bytes()
    assert "Not saved" in other.post(row=second["row"], answer=LEFT_OUT).json()["problem"]
    assert (project / "exports" / "net.labels.json").read_bytes() == log


def state_of(client):
    return client.state()["image"]


def test_another_dataset_s_table_is_left_alone(project):
    path = project / "exports" / "net.labels.csv"
    path.write_text("file,label\n")
    client = Client(project)
    state = client.decide(client.state()["image"]["row"], LEFT_OUT)
    assert state["table"].endswith("net.labels-2.csv") and path.read_text() == "file,label\n"
    assert state["data"] == shlex.quote(state["table"])


def test_a_run_on_a_review_s_table_has_a_table_of_its_own(project):
    client = Client(project)
    image = client.state()["image"]
    client.decide(image["row"], image["label"])  # kept: a table of the same images and labels
    path = project / "exports" / "net.labels.csv"
    fingerprint, run = load_source(path).fingerprint, project / "exports" / "net"
    assert fingerprint == load_source(project / "photos").fingerprint
    assert table_of(run, fingerprint, str(project / "photos")) == path  # goes on
    assert table_of(run, fingerprint, str(path)) == path.with_name("net.labels-2.csv")


def test_a_full_disk_keeps_what_was_there(project, monkeypatch):
    client = Client(project)
    row = client.state()["image"]["row"]
    client.decide(row, LEFT_OUT)
    files = sorted((project / "exports").glob("net.labels*"))
    before = [path.read_bytes() for path in files]

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("cifar_fast.serve.decisions.atomic_write", full)
    response = client.post(row=client.state()["image"]["row"], answer=LEFT_OUT)
    assert response.status_code == 500 and "make room" in response.json()["problem"]
    assert [path.read_bytes() for path in files] == before and client.state()["done"] == 1


def test_originals_come_whole_and_only_those_of_the_dataset(project):
    client = Client(project)
    client.state()
    paths = [p for a in load_source(project / "photos").splits.values() for p in a.paths()]
    for row, path in enumerate(paths):
        response = client.http.get(f"/review/original/{row}")
        with open(path, "rb") as file:
            assert response.headers["content-type"] == "image/png"
            assert (response.content == file.read()) == (not path.endswith(".tif"))
    for bad in ("13", "-1", "../secret.png", "%2e%2e%2fsecret.png", "1e3", "x"):
        assert client.http.get(f"/review/original/{bad}").status_code == 404
    assert Image.open(io.BytesIO(client.http.get("/review/seen/0").content)).size == (32, 32)


@pytest.mark.parametrize("headers", [{"X-Review-Token": ""}, {"X-Review-Token": "é".encode()},
                                     {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_only_the_page_of_this_server_may_decide(project, headers):
    client = Client(project)
    row = client.state()["image"]["row"]
    assert client.post(row=row, answer=0, headers=headers).status_code == 403
    assert client.state()["done"] == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"row": "0", "answer": 0}', b'{"row": 0, "answer": 2}',
                                  b'{"row": 99, "answer": 0}', b'{"row": true, "answer": 0}', b"[" * 4000,
                                  b'{"row": 0, "answer": -2}', b" " * 5000])
def test_a_bad_request_changes_nothing(project, body):
    client = Client(project)
    client.state()
    response = client.http.post("/review/answer", content=body, headers={"X-Review-Token": client.token})
    assert response.status_code in (400, 413) and client.state()["done"] == 0


def test_other_machines_have_no_review(project):
    client = Client(project, host="0.0.0.0")
    page = client.http.get("/review")
    assert page.status_code == 403 and "this machine alone" in page.text and client.token is None
    assert client.http.get("/review/state").status_code == 403
    assert client.http.get("/review/original/0").status_code == 403
    client.token = ""
    assert client.post(row=0, answer=0).status_code == 403


def test_a_run_on_no_files_says_so(project, digits):
    export(project / "exports" / "digits", "digits")
    state = Client(project, "digits").state()
    assert state["state"] == "problem" and "are no files" in state["text"]


@pytest.mark.parametrize("data, said", [("food101", "downloads nothing"), ("hf:owner/name", "are no files"),
                                        ("cifar100", "are no files"), ("cifar10", "are no files")])
def test_opening_it_downloads_nothing(project, tmp_path, monkeypatch, data, said):
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    monkeypatch.setattr("cifar_fast.data.sources.cached", None)  # what decodes, and downloads before that
    run = shutil.copytree(project / "exports" / "net", project / "exports" / "named", dirs_exist_ok=True)
    card = json.loads((run / "card.json").read_text())
    card["recipe"]["data"] = data
    (run / "card.json").write_text(json.dumps(card))
    assert said in Client(project, "named").state()["text"]


def test_images_that_changed_since_are_refused(project):
    card = json.loads((project / "exports" / "net" / "card.json").read_text())
    card["data"]["fingerprint"] = "0" * 64
    (project / "exports" / "old").mkdir(exist_ok=True)
    for path in (project / "exports" / "net").iterdir():
        (project / "exports" / "old" / path.name).write_bytes(path.read_bytes())
    (project / "exports" / "old" / "card.json").write_text(json.dumps(card))
    assert "have changed" in Client(project, "old").state()["text"]
