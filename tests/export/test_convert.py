"""`export --to`: every target's file predicts what the model does, or is not kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from cifar_fast.cli.main import main
from cifar_fast.export import targets
from cifar_fast.export.calibrate import save
from cifar_fast.export.card_checks import Duplicates
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Calibration
from cifar_fast.export.check import (
    Measured,
    allowed,
    bound_of,
    differing,
    noise,
    predict_in_batches,
    require_alike,
    some_of,
)
from cifar_fast.export.convert import Conversion, chosen
from cifar_fast.export.load import load_model
from cifar_fast.export.onnx_file import open_onnx
from cifar_fast.export.predictor import load_export
from cifar_fast.export.targets import all_targets, find_targets, register_target

OURS = ("onnx", "onnx-int8", "torch", "pickle")


@pytest.fixture(scope="module")
def exported(plain, tmp_path_factory):
    "A run, exported to all targets of this file."
    folder = tmp_path_factory.mktemp("exported") / "net"
    shutil.copytree(run_of(plain), folder)
    assert main(["export", str(folder), "--to", ",".join(OURS)]) == 0
    return folder


@pytest.fixture
def run(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "net"))


def run_of(exports):
    return next(exports.glob("*/card.json")).parent


def test_a_run_makes_model_onnx(plain):
    folder = run_of(plain)
    row = read_card(folder).exported["model.onnx"]
    assert row.target == "onnx" and row.n and not row.differ and row.accuracy == row.accuracy_torch
    assert row.bytes == (folder / "model.onnx").stat().st_size


def test_rows_say_what_was_measured(exported, digits):
    card = read_card(exported)
    rows = {row.target: row for row in card.exported.values()}
    assert set(rows) == set(OURS)
    for name in ("onnx", "torch", "pickle"):
        assert rows[name].differ == 0 and rows[name].difference < 1e-4
    assert rows["onnx-int8"].differ <= 0.02 * rows["onnx-int8"].n and rows["onnx-int8"].note.startswith("ranges by ")
    assert rows["onnx-int8"].bytes < 0.4 * rows["onnx"].bytes
    assert all(set(row.speed) == {"1", "125"} and row.images == card.split for row in rows.values())
    table = (exported / "README.md").read_text("utf-8")
    assert all(f"| `{name}` |" in table for name in card.exported)


def test_model_onnx_is_used_without_this_package(exported, digits):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    facts, card = session.get_modelmeta().custom_metadata_map, read_card(exported)
    assert json.loads(facts["classes"]) == card.vocab and facts["weights_sha256"] == card.sha256
    expected = load_export(exported).predict(digits.test.images[:133])
    for a, b in ((0, 1), (1, 8), (8, 133)):
        found = session.run(["probabilities"], {"images": np.ascontiguousarray(digits.test.images[a:b])})[0]
        assert np.abs(found - expected[a:b]).max() < 1e-4


def test_model_pt2_is_used_without_this_package(exported, digits):
    images = torch.tensor(np.asarray(digits.test.images[:5]))
    found = torch.export.load(exported / "model.pt2").module()(images)
    assert np.abs(found.numpy() - load_export(exported).predict(images.numpy())).max() < 1e-4


def test_other_temperatures_reach_the_files(run):
    images = noise(32, 20)
    before = load_export(run).predict(images)
    fitted = Calibration(temperature=2.5, images="held-out", n=9, error_before=0.2, error_after=0.1)
    with pytest.warns(UserWarning, match="model.pt2 has the former temperature.*--to torch makes it again"):
        card = save(run, fitted)
    assert set(card.exported) == {"model.onnx", "model.int8.onnx", "learner.pkl"}
    expected = load_export(run).predict(images)
    assert np.abs(expected - before).max() > 0.01
    for name in ("model.onnx", "model.int8.onnx"):
        session, info = open_onnx(run / name)
        assert info.temperature == 2.5
    assert np.abs(load_model(run / "model.onnx").predict(images) - expected).max() < 1e-4
    assert (run / "model.stale.pt2").exists() and not (run / "model.pt2").exists()
    assert main(["export", str(run), "--to", "torch"]) == 0
    assert (run / "model.pt2").exists() and not (run / "model.stale.pt2").exists()


def test_evaluate_and_compare_take_a_file(exported, capsys):
    assert main(["evaluate", str(exported / "model.int8.onnx"), "data=digits", "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["accuracy"] <= 1
    assert main(["compare", str(exported), str(exported / "model.int8.onnx"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["pair"]["names"] == ["net", "net/model.int8.onnx"]
    assert shown["pair"]["n"] == read_card(exported).metrics.n
    assert shown["runs"][1]["accuracy"] == pytest.approx(shown["pair"]["accuracy"][1])
    assert main(["compare", str(exported), str(exported / "model.int8.onnx")]) == 0
    assert "model.int8.onnx: no row" not in capsys.readouterr().out


# ---------------------------------------------------------------- what is not kept


@pytest.fixture
def wrong(monkeypatch):
    "A target whose file predicts the next class."
    all_targets()
    monkeypatch.setattr(targets, "TARGETS", dict(targets.TARGETS))

    def open_model(path, card):
        predict = load_export(path.read_text()).predict
        return lambda images: np.roll(predict(images), 1, 1)

    def make(folder, card, model):
        (folder / "wrong.txt").write_text(str(open_model.run))
        return [folder / "wrong.txt"]
    register_target("wrong", about="nowhere", open=open_model)(make)
    return open_model


def test_a_file_whose_predictions_differ_is_not_kept(run, wrong, digits, capsys):
    wrong.run, card = run, read_card(run)
    with pytest.raises(ExportError, match="wrong.txt"):
        Conversion.of(run, digits, find_targets(["wrong"])).make(targets.TARGETS["wrong"])
    assert read_card(run) == card and not list(run.glob("wrong*")) and not list(run.glob(".*"))
    assert main(["export", str(run), "--to", "wrong,torch"]) == 1  # the others are made
    assert "wrong.txt" in (said := capsys.readouterr()).err and "model.pt2" in said.out


def test_a_target_that_cannot_be_made_here_says_how_it_can(run, wrong, capsys):
    register_target("elsewhere", about="", needs=("no_such_package",))(lambda *_: [])
    assert main(["export", str(run), "--to", "elsewhere"]) == 2
    assert "pip install no_such_package" in capsys.readouterr().err
    taken, left_out = chosen(["all"], run, None)
    assert "elsewhere" not in [t.name for t in taken] and any("no_such_package" in reason for reason in left_out)
    assert "onnx-int8" not in [t.name for t in taken]  # it is calibrated on images, and there are none
    assert main(["export", str(run), "--to", "onxx"]) == 2 and "onnx" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "all,onxx"]) == 2 and "'onxx'" in capsys.readouterr().err
    taken, left_out = chosen(["all", "elsewhere"], run, None)  # named besides `all` it is not left out, but refused
    assert taken[0].name == "elsewhere" and not any("no_such_package" in reason for reason in left_out)
    with pytest.raises(ExportError, match="no_such_package"):
        Conversion.of(run, None, taken)


def test_a_file_that_nothing_here_can_run_says_so(run, wrong, digits):
    def make(folder, card, model):
        (path := folder / "closed.txt").write_text("")
        return [path]

    register_target("closed", about="", open=lambda path, card: None, note=lambda path, run: f"run here: {run}")(make)
    made = Conversion.of(run, digits, find_targets(["closed"])).make(targets.TARGETS["closed"])
    assert made["closed.txt"].note == "run here: False" and made["closed.txt"].n == 0


def test_a_run_whose_images_are_gone_is_compared_on_noise(run, capsys):
    card = read_card(run)
    type(card)(**{**vars(card), "recipe": {**card.recipe, "data": "/no/such/folder"}}).write(run)
    assert main(["export", str(run), "--to", "onnx"]) == 0
    assert "/no/such/folder" in capsys.readouterr().err
    row = read_card(run).exported["model.onnx"]
    assert row.images == "noise" and row.accuracy is None and row.n == 500
    assert main(["export", str(run), "--to", "onnx-int8"]) == 2


def test_bounds():
    expected = np.array([[0.6, 0.4]] * 99 + [[0.5, 0.499999]])
    on = Measured(np.zeros((100, 8, 8, 3), np.uint8), np.zeros(100, np.int64), "test", expected)
    found = expected.copy()
    found[-1] = expected[-1][::-1]
    assert not differing(found, expected).any()  # a tie
    require_alike(Path("model.onnx"), found, on)
    found[:2] = [0.4, 0.6]
    assert differing(found, expected).sum() == 2
    with pytest.raises(ExportError, match=r"2 of 100 images \(test; at most 0 may differ\)"):
        require_alike(Path("model.onnx"), found, on)
    require_alike(Path("model.int8.onnx"), found, on)  # 3 fewer are right, with the tie, of only 100
    many = Measured(np.repeat(on.images, 10, 0), np.repeat(on.labels, 10), "test", np.repeat(expected, 10, 0))
    with pytest.raises(ExportError, match=r"30 fewer are right \(at most 5\)"):
        require_alike(Path("model.int8.onnx"), np.repeat(found, 10, 0), many)
    require_alike(Path("model.int8.onnx"), found, Measured(on.images, None, "noise", expected))
    assert bound_of(Path("a/model.micro.tflite")).loss == 0.005
    with pytest.raises(ExportError, match="finite"):
        require_alike(Path("model.int8.onnx"), found * np.nan, on)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 132, 133, 134, 300])
def test_every_image_is_predicted_once(n):
    seen = predict_in_batches(lambda images: images * 2, np.arange(n))
    assert seen.tolist() == (np.arange(n) * 2).tolist()


def test_the_images_of_a_target_that_takes_few_are_of_all_classes():
    labels = np.repeat([0, 1, 2], 200)  # class by class, as those of a folder come
    on = Measured(np.arange(600), labels, "test", np.eye(3)[labels])
    few = some_of(on, 90)
    assert len(few) == 90 and min(np.bincount(few.labels, minlength=3)) > 15
    assert (few.images // 200 == few.labels).all() and (few.expected.argmax(1) == few.labels).all()
    assert some_of(on, 600) is on


def test_what_another_command_adds_to_the_card_meanwhile_stays(run, digits, monkeypatch):
    conversion = Conversion.of(run, digits, find_targets(["pickle"]))
    found = Duplicates(n=1, images=9, accuracy=1.0, accuracy_without=0.5)
    replace(read_card(run), duplicates=found).write(run)
    conversion.make(find_targets(["pickle"])[0], speed=False)
    assert read_card(run).duplicates == found
    with pytest.warns(UserWarning, match="former temperature"):
        save(run, Calibration(temperature=2.5, images="held-out", n=9, error_before=0.2, error_after=0.1))
    before = (run / "learner.pkl").read_bytes()
    with pytest.raises(ExportError, match="was calibrated while"):
        conversion.make(find_targets(["pickle"])[0], speed=False)
    assert read_card(run).calibration.temperature == 2.5 and (run / "learner.pkl").read_bytes() == before


def test_what_chance_allows_of_few_images():
    assert [allowed(n, 0.02) for n in (60, 200, 1000, 10_000)] == [4, 9, 20, 200]
    assert [allowed(n, 0.005) for n in (60, 200, 1000, 10_000)] == [2, 4, 5, 50]
    assert allowed(60, 0.0) == allowed(10_000, 0.0) == 0


def test_a_run_that_cannot_be_converted_is_a_run_all_the_same(digits, tmp_path, monkeypatch, capsys):
    from kills import RUN

    def no(*_):
        raise ExportError("cifar_sprint cannot be converted")
    monkeypatch.setattr("cifar_fast.export.targets.onnx.converted", no)
    assert main([*RUN, f"exports={tmp_path}", "epochs=1"]) == 0
    assert "cannot be converted" in capsys.readouterr().err
    folder = run_of(tmp_path)
    assert not (folder / "model.onnx").exists() and (folder / "model.safetensors").exists()
