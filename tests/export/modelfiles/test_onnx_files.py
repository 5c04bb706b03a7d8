"""Hostile and damaged .onnx files are refused before a library parses them."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cifar_fast.cli.main import main
from cifar_fast.export import onnx_file
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.load import load_model
from cifar_fast.export.onnx_file import OnnxError, judged, open_onnx, read_onnx

FACTS = {"classes": '["ant", "bee"]', "size": "8", "temperature": "1.0", "name": "farm"}


def proto(*nodes, facts=None, size=8, **model):
    "A model that gives 0.5 for two classes, after `nodes`."
    nodes = nodes or (helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
                      helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
                      helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
                      helper.make_node("Softmax", ["logits"], ["probabilities"]))
    graph = helper.make_graph(
        nodes, "farm", [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
         helper.make_tensor("weights", TensorProto.FLOAT, [3, 2], [0.0] * 6)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, **model)
    helper.set_model_props(made, FACTS if facts is None else facts)
    return made


@pytest.fixture
def refused(tmp_path):
    def refused(content, words):
        path = tmp_path / "net.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        with pytest.raises(OnnxError, match=words) as e:
            open_onnx(path)
        assert str(path) in str(e.value) and "\n" not in str(e.value)
    return refused


def test_a_harmless_file_is_opened(tmp_path):
    onnx.save(proto(), path := tmp_path / "net.onnx")
    session, info = open_onnx(path)
    assert info.vocab == ["ant", "bee"] and info.size == 8 and info.name == "farm"
    assert session.run(None, {"images": np.zeros((3, 8, 8, 3), np.uint8)})[0].tolist() == [[0.5, 0.5]] * 3
    assert judged(path.read_bytes()) == FACTS


@pytest.mark.parametrize("node, words", [
    (helper.make_node("Loop", ["a", "b"], ["c"], body=helper.make_graph([], "inner", [], [])), "graph"),
    (helper.make_node("If", ["a"], ["c"]), "'If'"),
    (helper.make_node("Relu", ["images"], ["x"], domain="com.microsoft"), "com.microsoft"),
    (helper.make_node("MaxPool", ["images"], ["x"], kernel_shape=[2, 2], pads=[10**9] * 4), "1,000,000,000"),
    (helper.make_node("Evil\x1b[2J", ["images"], ["x"]), r"x1b"),
], ids=lambda value: value if isinstance(value, str) else value.op_type)
def test_operations_that_are_not_run(refused, node, words):
    refused(proto(node), words)


def test_weights_in_other_files_are_not_read(refused, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(24))
    made = proto()
    tensor = made.graph.initializer[1]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    refused(made, "another file")
    tensor.data_location = TensorProto.DEFAULT  # a reader may go by the list alone
    refused(made, "another file")
    inside = proto()
    inside.graph.initializer[1].ClearField("float_data")
    constant = helper.make_node("Constant", [], ["weights"], value=tensor)
    inside.graph.node.insert(0, constant)
    refused(inside, "another file")


def test_functions_and_other_graphs_are_not_run(refused):
    function = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
                                    [helper.make_opsetid("", 18)])
    refused(proto(functions=[function]), "functions")
    refused(proto().SerializeToString() * 2, "2 graphs")
    refused(b"\x0a\x02\x00\x00ORTM" + bytes(64), "own format")
    made = proto()
    made.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    refused(made, "ai.onnx.contrib")


@pytest.mark.parametrize("facts, words", [
    ({}, "classes, size, temperature"),
    ({**FACTS, "classes": "7"}, "classes"), ({**FACTS, "classes": '["a\\u001b[2J"]'}, "classes"),
    ({**FACTS, "size": "100000"}, "size"), ({**FACTS, "size": "[" * 100_000}, "no model"),
    ({**FACTS, "temperature": "NaN"}, "temperature"), ({**FACTS, "temperature": "0"}, "temperature"),
    ({**FACTS, "resize_mode": "../x"}, "resize_mode"), ({**FACTS, "ranges": '{"I": [1]}'}, "ranges"),
    ({**FACTS, "size": "16"}, "16"),
    ({**FACTS, "temperature": "1" + "0" * 400}, "too large"),
    ({**FACTS, "ranges": '{"I": [0, 1' + "0" * 400 + "]}"}, "too large"),
], ids=str)
def test_what_a_file_says_of_itself_is_checked(refused, facts, words):
    refused(proto(facts=facts), words)


def test_damaged_files(refused, tmp_path, monkeypatch):
    whole = proto().SerializeToString()
    for content in (b"", b"PK\x03\x04" + bytes(99), whole[:-40], whole[: len(whole) // 2], os.urandom(4096),
                    b"\xff" * 64, b'{"a": 1}'):
        refused(content, "no model|cannot be opened")
    with pytest.raises(OnnxError, match="no file"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(OnnxError, match="no regular file"):
        read_onnx("/dev/zero")
    monkeypatch.setattr(onnx_file, "ONNX_BYTES", len(whole) - 1)
    refused(whole, "more than")


def test_an_attribute_that_is_a_number_is_refused(refused):
    def part(number, content):  # a field of protobuf, of fewer than 2^14 bytes
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content

    model = proto()
    node = model.graph.node[0].SerializeToString() + b"\x28\x01"  # field 5, which is its attributes, holds 1
    del model.graph.node[0]
    graph = part(1, node) + model.graph.SerializeToString()
    model.ClearField("graph")
    refused(model.SerializeToString() + part(7, graph), "no model")


def test_a_map_that_would_take_all_memory_is_refused(tmp_path, capfd):
    "Sizes that are tensors are seen by the runtime alone: 28,000 × 28,000 × 3 numbers of 4 bytes are 9.4 GB."
    model = proto(helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
                  helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
                  helper.make_node("Expand", ["mean", "shape"], ["wide"]),
                  helper.make_node("ReduceMean", ["wide", "axes"], ["narrow"], keepdims=0),
                  helper.make_node("MatMul", ["narrow", "weights"], ["logits"]),
                  helper.make_node("Softmax", ["logits"], ["probabilities"]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [4], [1, 28_000, 28_000, 3]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="net.onnx cannot be run"):
        load_model(tmp_path / "net.onnx")
    assert not capfd.readouterr().err  # the runtime's own log


def test_any_changed_byte_is_refused_or_harmless(tmp_path):
    whole, rng, path = bytearray(proto().SerializeToString()), np.random.default_rng(0), tmp_path / "net.onnx"
    opened = 0
    for at in rng.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            open_onnx(path)
            opened += 1
        except OnnxError:
            pass
    assert 0 < opened < 300


def test_the_command_line_names_the_file(tmp_path, capsys):
    (path := tmp_path / "net.onnx").write_bytes(b"no model")
    assert main(["evaluate", str(path), "data=digits"]) == 2
    assert "net.onnx" in capsys.readouterr().err
