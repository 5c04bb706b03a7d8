"""Files for LiteRT and TFLite Micro, as far as the interpreter alone goes: opened, measured, refused, rewritten."""

import json
import re
import subprocess
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from serving import CARD
from tiny_tflite import FACTS, WEIGHTS, file, operator_code, outside, packed, parts

from cifar_fast.cli.main import main
from cifar_fast.export import tflite_file, tflite_predictor
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.load import load_model
from cifar_fast.export.targets import all_targets, litert
from cifar_fast.export.targets.c_header import header, method
from cifar_fast.export.tflite_file import TfliteError, graph_of, judged, read_tflite, with_facts
from cifar_fast.export.tflite_graph import repacked
from cifar_fast.export.tflite_predictor import Session, open_tflite

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.fixture
def refused(tmp_path):
    def refused(content, words):
        path = tmp_path / "net.tflite"
        path.write_bytes(content)
        with pytest.raises(TfliteError, match=words) as e:
            open_tflite(path)
        assert str(path) in str(e.value) and "\n" not in str(e.value)
    return refused


def expected(images):
    logits = images.mean((1, 2)) @ WEIGHTS.T
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def run(graph, images=IMAGES):
    return Session(graph).run(None, {"images": images})[0]


@pytest.mark.parametrize("int8", [False, True])
def test_a_file_is_opened_by_what_it_says_of_itself(tmp_path, int8):
    path = tmp_path / "farm.tflite"
    path.write_bytes(file(packed(parts(int8))))
    model = load_model(path)
    assert model.vocab == ["ant", "bee"] and model.size == 8 and model.card.name == "farm"
    assert np.abs(model.predict(IMAGES) - expected(IMAGES)).max() < 1e-5
    assert np.abs(model.predict(IMAGES, tta=True) - expected(IMAGES)).max() < 1e-5
    with pytest.raises(ExportError, match="LiteRT alone"):
        model.logits(IMAGES)
    with pytest.raises(ExportError, match="CPU"):
        load_model(path, "cuda")
    assert zipfile.ZipFile(path).read("labels.txt").decode() == "ant\nbee\n"
    assert path.read_bytes() == file(packed(parts(int8)))  # the same bytes each time


def test_evaluate_takes_a_file(digits, tmp_path, capsys):
    model = parts(size=32)
    path = tmp_path / "two.tflite"
    path.write_bytes(file(packed(model), size="32", classes='["0", "1"]'))
    assert main(["evaluate", str(path), "data=digits", "--json"]) == 0
    shown, known = json.loads(capsys.readouterr().out), digits.test.labels < 2
    predicted = expected(digits.test.images[known].astype(np.float64)).argmax(1)
    assert shown["n"] == known.sum()
    assert shown["accuracy"] == pytest.approx((predicted == digits.test.labels[known]).mean(), abs=0.02)


# ---------------------------------------------------------------- refused


def test_other_files_are_refused(refused, tmp_path):
    refused(b"", "no TFLite file")
    refused(b"\x10\0\0\0TFL3", "points out of the file")
    refused(b"PK" * 50, "no TFLite file")
    refused(packed(parts()), "cifar_fast.json is not in it")
    refused(file(size="9"), r"input is \[1, 8, 8, 3\]")
    refused(file(classes='["ant"]'), r"output \[1, 2\]")
    refused(file(temperature="-1"), "temperature")
    refused(file(packed(parts(int8=True, scale=0.95))), "scale and zero point")
    refused(file(more="x" * tflite_file.FACTS_BYTES), "cifar_fast.json")
    with pytest.raises(TfliteError, match="no file"):
        open_tflite(tmp_path / "none.tflite")


def changed(change):
    model = parts()
    change(model, model.subgraphs[0])
    return file(packed(model))


@pytest.mark.parametrize("change, words", [
    (lambda model, graph: setattr(model.operatorCodes[0], "customCode", b"evil"), "operations of its own"),
    (lambda model, graph: model.operatorCodes.append(operator_code(32)), "operations of its own"),
    (lambda model, graph: model.operatorCodes.append(operator_code(118)), "operation 118"),
    (lambda model, graph: model.subgraphs.append(graph), "2 graphs"),
    (lambda model, graph: model.subgraphs.clear(), "0 graphs"),
    (lambda model, graph: setattr(graph.tensors[1], "shape", [2**16, 2**16]), "shape"),
    (lambda model, graph: setattr(graph.tensors[1], "shape", [-5]), "shape"),
    (lambda model, graph: setattr(graph.tensors[1], "type", 5), "type 5"),
    (lambda model, graph: setattr(graph.tensors[4], "buffer", 99), "out of the file"),
    (lambda model, graph: setattr(graph.operators[0], "opcodeIndex", 9), "does not name"),
    (lambda model, graph: setattr(graph.operators[0], "inputs", [99]), "not there"),
    (lambda model, graph: setattr(graph.operators[0], "outputs", [99]), "one input and one output"),
    (lambda model, graph: setattr(graph, "inputs", [0, 1]), "one input and one output"),
])
def test_graphs_that_are_not_run(refused, change, words):
    refused(changed(change), words)


def test_weights_out_of_the_file_are_refused(refused):
    model = parts()
    model.buffers[2].data, model.buffers[2].offset, model.buffers[2].size = None, 2**40, 24
    refused(file(packed(model)), "out of the file")


def test_a_graph_that_contradicts_itself_is_refused(refused):
    refused(changed(lambda model, graph: setattr(graph.tensors[4], "shape", [2, 300])), "cannot be opened")


def test_a_file_that_ends_the_interpreters_process_is_refused(refused, tmp_path, monkeypatch):
    (probe := tmp_path / "probe.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(tflite_predictor, "PROBE", probe)
    refused(file(), r"signal 11")
    probe.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(tflite_predictor, "SECONDS", 0.5)
    refused(file(), "more than 0.5 s")


def test_damaged_files_are_judged_without_a_crash(tmp_path):
    content, rng, path = file(), np.random.default_rng(0), tmp_path / "net.tflite"
    broken = [content[:n] for n in range(0, len(content), 40)]
    for _ in range(300):
        bits = bytearray(content)
        for at in rng.integers(0, len(packed(parts())), 3):
            bits[at] = rng.integers(256)
        broken.append(bytes(bits))
    for each in broken:
        path.write_bytes(each)
        try:
            read_tflite(path)
        except TfliteError as e:
            assert str(path) in str(e)


# ---------------------------------------------------------------- rewritten


def test_weights_are_brought_into_the_flatbuffer():
    graph = outside(parts())
    assert judged(graph).outside and np.abs(run(graph) - expected(IMAGES)).max() < 1e-5
    for bare in (False, True):
        inline = repacked(graph, bare)
        found = judged(inline)
        assert not found.outside and all(start % 16 == 0 for start, _ in found.weights)
        assert [inline[a:a + n] for a, n in found.weights][-1] == WEIGHTS.tobytes()
        assert (run(inline) == run(graph)).all()
        assert (b"weights" in inline) is not bare and repacked(inline, bare) == inline


def test_a_header_holds_the_graph(tmp_path):
    graph = repacked(packed(parts(int8=True)), bare=True)
    vocab = ["ant", 'b"e\\e\n', "Käfer 9??/"]
    text = header(graph, replace(CARD, vocab=vocab, name="a\\", size=8), judged(graph).operators, 4096)
    array = text[text.index("model[MODEL_BYTES] = {"):].partition("{")[2].partition("}")[0]
    assert bytes(map(int, array.strip().strip(",").split(","))) == graph
    constants = dict(re.findall(r"#define (MODEL_\w+) (\d+)", text))
    assert constants == {"MODEL_SIDE": "8", "MODEL_INPUT": "192", "MODEL_CLASSES": "3", "MODEL_OPERATORS": "4",
                         "MODEL_BYTES": str(len(graph)), "MODEL_ARENA": "4096"}
    names = re.findall(r'^  "(.*)",$', text, re.M)
    assert [n.encode().decode("unicode_escape").encode("latin1").decode() for n in names] == vocab
    assert text.startswith("// a_: ") and re.findall(r"r\.Add(\w+)\(\)", text) == \
        ["Dequantize", "Mean", "FullyConnected", "Softmax"]


def test_names_of_operations_in_tflite_micro():
    assert [method(o) for o in ("CONV_2D", "DEPTHWISE_CONV_2D", "RELU6", "PADV2", "LEAKY_RELU")] == \
        ["Conv2D", "DepthwiseConv2D", "Relu6", "PadV2", "LeakyRelu"]


def test_the_graph_without_its_archive():
    graph = packed(parts())
    assert graph_of(with_facts(graph, FACTS)) == graph
    with pytest.raises(ValueError, match="archive"):
        graph_of(graph)


# ---------------------------------------------------------------- where it cannot be made


def test_an_environment_is_refused_with_the_commands_that_make_one(plain, monkeypatch, capsys):
    folder = next(plain.glob("*/card.json")).parent
    card = read_card(folder)
    monkeypatch.setattr(litert, "torch", torch)
    for name in ("litert", "micro"):
        target = all_targets()[name]
        monkeypatch.setitem(all_targets(), name, replace(target, needs=("no_such_package",)))
        assert main(["export", str(folder), "--to", name]) == 2
        said = capsys.readouterr().err
        assert "no_such_package" in said and f"export {folder} --to litert,micro" in said
        assert "\npython -m uv venv litert-env\npython -m uv pip install --python litert-env -e \".[litert]\"\n" in said
        monkeypatch.setitem(all_targets(), name, replace(target, needs=()))
        monkeypatch.setattr(torch, "__version__", "2.15.0+cpu")
        with pytest.raises(ExportError, match=r"torch 2\.15\.0\+cpu:\n# .*\npython -m"):
            all_targets()[name].ready("final")
    assert read_card(folder) == card


def test_the_commands_are_a_script(tmp_path):
    commands = litert.install_commands("my net").splitlines()
    assert commands[0].startswith("# ") and commands[-1].endswith(" -m cifar_fast export 'my net' --to litert,micro")
    (tmp_path / "it.sh").write_text("\n".join(commands))
    assert subprocess.run(["bash", "-n", str(tmp_path / "it.sh")]).returncode == 0
