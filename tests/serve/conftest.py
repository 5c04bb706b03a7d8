"""Runs to serve, made up: their net was never trained."""

import json
import shutil

import pytest
import torch
from PIL import Image
from serving import CARD, HOST
from starlette.testclient import TestClient

from cifar_fast.export.predictor import load_export, save_export
from cifar_fast.models import create_model
from cifar_fast.serve.app import create_app


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    stem = tmp_path_factory.mktemp("made") / "net"
    save_export(stem, create_model("cifar_sprint", 10), CARD, pickle=False)
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
