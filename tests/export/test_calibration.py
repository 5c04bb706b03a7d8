"""Calibration: a temperature recovered from logits made with one, thresholds by hand, and a run that is calibrated."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar_fast.cli.command import UsageError
from cifar_fast.cli.main import main
from cifar_fast.export.calibration import (
    CalibrationError,
    bins,
    calibration_error,
    confidence_line,
    confidence_scores,
    cross_fitted,
    fit_temperature,
    log_loss,
    softmax,
    tempered,
    threshold_rows,
)
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Calibration
from cifar_fast.export.load import load_model
from cifar_fast.export.predictor import load_export


def drawn(n=8_000, temperature=2.5, classes=5):
    "(logits, labels): the labels are drawn from the softmax of the logits divided by `temperature`."
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, (n, classes)).astype(np.float32)
    probabilities = softmax(logits / temperature)
    return logits, (probabilities.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, classes - 1)


def test_calibration_by_hand():
    "Ten images at 90 % of which nine are right, ten at 60 % of which three are: (0 + 0.3) / 2."
    probs = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    right = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    assert calibration_error(probs, right) == pytest.approx(0.15)
    assert list(bins(probs, right)["count"]) == [10, 10]
    assert calibration_error(np.eye(3), np.ones(3, bool)) == 0


def test_log_loss_by_hand():
    "ln 2, ln 4, and a probability too small for float16, which counts as the smallest there."
    probs, labels = np.array([[0.5, 0.5], [0.75, 0.25], [1, 0]]), np.array([0, 1, 1])
    assert log_loss(probs[:2], labels[:2]) == pytest.approx(1.5 * np.log(2))
    assert log_loss(probs[2:], labels[2:]) == pytest.approx(24 * np.log(2))
    scores = confidence_scores(probs[:2], np.array([True, False]), 2.0, labels[:2])
    assert scores["log_loss"] == pytest.approx(1.5 * np.log(2))
    raw = np.log(2) / 2 + np.log(10) / 2  # without the temperature 0.75 and 0.25 are 0.9 and 0.1
    assert scores["log_loss_uncalibrated"] == pytest.approx(raw) and f"{raw:.3f}" in confidence_line(scores)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_of_the_labels_is_found(temperature):
    logits, labels = drawn(temperature=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)
    right = logits.argmax(1) == labels
    after = calibration_error(cross_fitted(logits, labels), right)
    assert after < 0.015 < 0.05 < calibration_error(softmax(logits), right)


def test_a_temperature_changes_probabilities_as_it_does_logits():
    logits, _ = drawn(50)
    assert tempered(softmax(logits), 2.5) == pytest.approx(softmax(logits / 2.5), abs=1e-5)
    assert tempered(np.array([[1.0, 0.0]]), 3).tolist() == [[1, 0]]


@pytest.mark.parametrize("labels, why", [([0, 1, 0], "all 3 images are predicted right"), ([1, 0, 1], "than chance")])
def test_images_that_give_no_temperature(labels, why):
    with pytest.raises(CalibrationError, match=f"{why}.*data=FOLDER"):
        fit_temperature(np.array([[4.0, 0], [0, 4], [4, 0]]), np.array(labels))


def test_thresholds_by_hand():
    probs = np.array([[0.96, 0.04], [0.92, 0.08], [0.7, 0.3], [0.45, 0.55]])
    scores = confidence_scores(probs, np.array([True, False, True, True]))
    rows = {row["threshold"]: (row["answered"], row["right"]) for row in scores["thresholds"]}
    assert rows[0] == (1, 0.75) and rows[0.6] == (0.75, pytest.approx(2 / 3)) and rows[0.9] == (0.5, 0.5)
    assert rows[0.95] == (0.25, 1) and rows[0.99] == (0, None) and "temperature" not in scores
    assert threshold_rows(scores)[-1] == ["0.99", "0.0%", "–"]


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def held(tmp_path_factory, digits):
    "exports/held: digits with 300 images held out, trained too shortly to get them all right."
    exports = tmp_path_factory.mktemp("calibrated")
    assert main(["recipe", "sprint", "data=digits", "epochs=2", "bs=64", "valid=300", "name=held", "report=false",
                 f"exports={exports}", "device=cpu"]) == 0
    return exports / "held"


@pytest.fixture
def run(held, tmp_path):
    return shutil.copytree(held, tmp_path / "held")


def test_a_calibrated_run_predicts_with_its_temperature_until_it_is_undone(run, digits, capsys):
    images, card = digits.test.images[:40], read_card(run)
    before, logits, files = load_export(run).predict(images), load_export(run).logits(images), contents(run)
    assert before == pytest.approx(softmax(logits), abs=1e-5)
    assert main(["calibrate", str(run)]) == 0
    calibration = read_card(run).calibration
    assert calibration.n == 300 and calibration.images == "held-out" and calibration.temperature != 1
    assert calibration.log_loss_after < calibration.log_loss_before
    assert calibration.error_after < calibration.error_before and f"{calibration}" in capsys.readouterr().out
    expected = softmax(logits / calibration.temperature)
    assert load_export(run).predict(images) == pytest.approx(expected, abs=1e-5)
    assert load_model(run / "learner.pkl").predict(images) == pytest.approx(expected, abs=1e-5)
    learn = fastai_learner(run)
    assert learn.get_preds(dl=learn.dls.test_dl(list(images)))[0].numpy() == pytest.approx(expected, abs=1e-5)
    changed = {name for name, content in contents(run).items() if content != files.get(name)}
    assert changed == {"card.json", "learner.pkl", "model.onnx", "README.md"}
    assert f"divided by a {calibration}" in (run / "README.md").read_text("utf-8")
    assert replace(read_card(run), calibration=None, exported=card.exported) == card
    assert main(["calibrate", str(run), "--undo"]) == 0
    assert contents(run)["card.json"] == files["card.json"]
    assert "temperature" not in (run / "README.md").read_text("utf-8")
    after = contents(run)
    assert main(["calibrate", str(run), "--undo"]) == 2 and "was not calibrated" in capsys.readouterr().err
    assert contents(run) == after
    assert load_model(run / "learner.pkl").predict(images) == pytest.approx(before, abs=1e-5)


def contents(run):
    return {path.name: path.read_bytes() for path in run.iterdir()}


def fastai_learner(run):
    from fastai.learner import load_learner

    return load_learner(run / "learner.pkl")


def test_predict_says_unknown_below_a_threshold(run, digits, tmp_path, capsys):
    for i in range(12):
        Image.fromarray(np.array(digits.test.images[i])).save(tmp_path / f"{i:02}.png")
    shown = [str(run), str(tmp_path / "*.png"), "--csv", str(tmp_path / "out.csv")]
    assert main(["predict", *shown, "--json", "--topk", "10"]) == 0
    found = json.loads(capsys.readouterr().out)
    most = {row["file"]: max(row["probabilities"].values()) for row in found}
    threshold = float(np.mean(sorted(most.values())[5:7]))  # six images are below it
    assert main(["predict", *shown, "--json", "--threshold", str(threshold)]) == 0
    predicted = {row["file"]: row["prediction"] for row in json.loads(capsys.readouterr().out)}
    assert {file for file, label in predicted.items() if label == "unknown"} == {
        file for file, p in most.items() if p < threshold} and list(predicted.values()).count("unknown") == 6
    assert pd.read_csv(tmp_path / "out.csv", dtype=str)["prediction"].tolist() == list(predicted.values())
    assert main(["predict", *shown, "--threshold", str(threshold)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("  unknown  (" in line for line in lines) == 6 and len(lines) == 12


def test_evaluate_and_report_show_coverage_and_accuracy_at_thresholds(run, capsys):
    assert main(["calibrate", str(run)]) == 0 and main(["report", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["log_loss"] < 3 and found["log_loss_uncalibrated"] != found["log_loss"]
    assert found["temperature"] == read_card(run).temperature and found["thresholds"][0]["answered"] == 1
    assert found["thresholds"][0]["right"] == pytest.approx(found["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(np.mean(list(found["per_class"].values())))
    assert main(["evaluate", str(run), "--json", "--temperature", "1"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["calibration_error"] == pytest.approx(found["calibration_error_uncalibrated"], abs=1e-4)
    report = (run / "report.html").read_text("utf-8")
    assert "accuracy on these" in report and f"{read_card(run).calibration}" in report
    assert f"{read_card(run).calibration}" in (run / "README.md").read_text("utf-8")


def test_calibrate_takes_labelled_images_of_ones_own(run, digits, tmp_path, capsys):
    for i, label in enumerate(digits.test.labels[:150]):
        folder = tmp_path / "mine" / digits.vocab[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(digits.test.images[i])).save(folder / f"{i}.png")
    assert main(["calibrate", str(run), f"data={tmp_path / 'mine'}"]) == 0
    mine = read_card(run).calibration
    logits = load_export(run).logits(digits.test.images[:150])
    assert (mine.images, mine.n) == ("mine", 150)
    assert mine.temperature == pytest.approx(fit_temperature(logits, digits.test.labels[:150]), rel=1e-3)
    (tmp_path / "mine" / digits.vocab[0]).rename(tmp_path / "mine" / "owl")  # a class that the model does not know
    assert main(["calibrate", str(run), f"data={tmp_path / 'mine'}"]) == 0
    mine = read_card(run).calibration
    assert mine.n == (digits.test.labels[:150] != 0).sum()
    capsys.readouterr()
    assert main(["calibrate", str(run), "data=digits"]) == 2  # its own test set is among these
    assert "trained and tested on" in capsys.readouterr().err and read_card(run).calibration == mine


@pytest.mark.parametrize("settings, said", [({"valid": 0}, "valid=0.*valid=0.1.*data=FOLDER"),
                                            ({"validate_on": "test"}, "validated on the test set.*valid=0.1")])
def test_a_run_without_held_out_images_is_told_what_to_do(run, capsys, settings, said):
    card = read_card(run)
    replace(card, recipe={**card.recipe, **settings}).write(run)
    assert main(["calibrate", str(run)]) == 2
    assert np.char.count(capsys.readouterr().err, "\n") == 1 and read_card(run).calibration is None


def test_a_card_holds_only_a_temperature_that_can_be_one(run):
    card = read_card(run)
    assert Card.from_dict({k: v for k, v in card.to_dict().items() if k != "calibration"}).temperature == 1
    for wrong in (0, -1, 1e9, float("nan"), "2"):
        bad = {"temperature": wrong, "images": "x", "n": 1, "error_before": 0, "error_after": 0}
        with pytest.raises(ExportError, match="calibration.temperature"):
            Card.from_dict({**card.to_dict(), "calibration": bad})
    good = Calibration(temperature=1.5, images="x", n=9, error_before=0.2, error_after=0.1)
    assert Card.from_dict(replace(card, calibration=good).to_dict()).temperature == 1.5


@pytest.mark.parametrize("option", [["--threshold", "80"], ["--temperature", "0"], ["--temperature", "nan"]])
def test_a_threshold_or_temperature_that_is_none(run, option, capsys):
    assert main(["predict", str(run), "x.png", *option]) == UsageError.exit_code
    assert option[0] in capsys.readouterr().err


def test_a_temperature_that_does_not_help_is_not_kept(run, capsys, monkeypatch):
    before = contents(run)
    unsure = np.full((300, 10), 0.1)  # of everything, and right most of the time: badly calibrated
    monkeypatch.setattr("cifar_fast.export.calibrate.cross_fitted", lambda logits, labels: unsure)
    assert main(["calibrate", str(run)]) == 2
    assert "no temperature improves it on 300 images" in capsys.readouterr().err and contents(run) == before
