"""Runs to serve, made up: their net was never trained."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from serving import CARD, HOST
from starlette.testclient import TestClient

from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
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
    for name in ("other", "broken"):
        (here / name).mkdir()
    replace(CARD, date="2020-01-01").write(here / "other")
    (here / "broken" / "card.json").write_text('{"format": 2')
    Image.new("RGB", (30, 20)).save(here / "net" / "history.png")
    (here / "net" / "report.html").write_text("<!doctype html><title>Report</title><p>A report</p>")
    for secret in (tmp_path / "secret.png", here / "net" / "secret.txt", here / "secret.txt", here / "net" / ".lock"):
        secret.write_text("SECRET")
    return here


@pytest.fixture
def client(folder):
    return TestClient(create_app(load_export(folder / "net"), "net", folder), base_url=HOST)
