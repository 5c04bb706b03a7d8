"""A good export, copies of it to spoil, and where a payload would leave its trace."""

import shutil

import pytest
import torch
from strangers import CARD

from cifar_fast.export.save import save_export
from cifar_fast.models import create_model


@pytest.fixture(autouse=True)
def executed(tmp_path, monkeypatch):
    "Where a payload would leave its trace; no test but those that say so may find it."
    trace = tmp_path / "executed"
    monkeypatch.setenv("CIFAR_FAST_TEST_PAYLOAD", str(trace))
    monkeypatch.setenv("CIFAR_FAST_TRUST", str(tmp_path / "settings" / "trusted"))
    return trace


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    torch.manual_seed(0)
    stem = tmp_path_factory.mktemp("good") / "good"
    save_export(stem, create_model("cifar_sprint", 10), CARD)
    return stem


@pytest.fixture
def export(good, tmp_path):
    "A copy to spoil."
    return shutil.copytree(good, tmp_path / "good")
