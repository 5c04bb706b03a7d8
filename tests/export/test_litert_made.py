"""Files for LiteRT and TFLite Micro as they are made. Run where `[litert]` is installed; see .ci/run."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("litert_torch")

import flatbuffers
import torch
from ai_edge_litert.schema_py_generated import ModelT
from serving import CARD
from torch import nn

from cifar_fast.export.card_format import ExportError
from cifar_fast.export.deployed import Deployed
from cifar_fast.export.load import load_model
from cifar_fast.export.targets import litert, micro
from cifar_fast.export.tflite_file import graph_of, read_facts
from cifar_fast.models import create_model

CLASSES = ["chanterelle", "Käfer", "morel"]


@pytest.fixture(scope="module")
def images():
    "Dark ones: their pixels alone would give the input another scale."
    return np.random.default_rng(0).integers(0, 90, (24, 48, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    "Of another size and number of classes."
    torch.manual_seed(0)
    return create_model("cifar_sprint", len(CLASSES), 48).eval()


CARD_48 = replace(CARD, vocab=CLASSES, size=48)


def test_any_size_and_classes_through_both_interpreters(tmp_path, model, images):
    paths = [*litert.make(tmp_path, CARD_48, model, images), *micro.make(tmp_path, CARD_48, model, images)]
    assert [path.name for path in paths] == ["model.tflite", "model.int8.tflite", "model.micro.tflite", "model.h"]
    expected = Deployed(model, CARD_48).eval()(torch.from_numpy(images)).numpy()
    found = {path.name: load_model(path).predict(images) for path in paths[:-1]}
    assert np.abs(found["model.tflite"] - expected).max() < 1e-4
    for name in ("model.int8.tflite", "model.micro.tflite"):
        assert np.abs(found[name] - expected).max() < 0.1 and load_model(tmp_path / name).vocab == CLASSES
    memory = micro.measured(tmp_path / "model.micro.tflite")
    assert memory["arena"] > 48 * 48 * 3
    graph = graph_of((tmp_path / "model.int8.tflite").read_bytes())
    assert memory["flash"] <= len(graph) < plainly_packed(graph) - repeated(graph)
    assert f"#define MODEL_ARENA {micro.rounded(memory['arena'])}\n" in (tmp_path / "model.h").read_text("utf-8")
    assert int(read_facts((tmp_path / "model.micro.tflite").read_bytes())["micro_n"]) == len(images)


def repeated(graph):
    "Bytes of zero points that several weights have."
    (first,) = ModelT.InitFromPackedBuf(graph).subgraphs
    points = [t.quantization.zeroPoint for t in first.tensors if t.quantization is not None]
    found = [zeros.tobytes() for zeros in points if zeros is not None]
    assert len(found) > len(set(found)) > 1
    return sum(map(len, found)) - sum(map(len, set(found)))


def plainly_packed(graph):
    "Bytes of the graph as flatbuffers writes it, which has no vector for two."
    model, builder = ModelT.InitFromPackedBuf(graph), flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return len(builder.Output())


def test_an_arena_below_what_was_measured_is_too_small(tmp_path, model, images, monkeypatch):
    monkeypatch.setattr(micro, "rounded", lambda arena: arena // 2)
    with pytest.raises(ExportError, match="tflite-micro cannot run it"):
        micro.make(tmp_path, CARD_48, model, images)


def test_a_model_that_cannot_be_converted_is_named(tmp_path, images):
    class Sorted(nn.Module):
        def forward(self, x):
            return x.flatten(1).median(1).values.item() * x.flatten(1)[:, :3]
    with pytest.raises(ExportError, match=f"{CARD.arch} cannot be converted to LiteRT"):
        litert.make(tmp_path, CARD_48, Sorted(), images)
