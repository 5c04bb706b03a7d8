"""Accuracy and confusion as text, of few classes and of many."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rows import made
from serving import CARD

from cifar_fast.data.arrays import Arrays
from cifar_fast.data.sources import Source
from cifar_fast.export.bulk.job import engine_of
from cifar_fast.export.card_parts import Metrics, class_names
from cifar_fast.export.files import run_folder
from cifar_fast.export.metrics import MATRIX, scores_of_predicted, scores_text
from cifar_fast.export.predictions import Predictions, PredictionsError
from cifar_fast.export.summary import last_record, result_text
from cifar_fast.reporting.compare import table, table_text
from cifar_fast.reporting.report import model_card
from cifar_fast.reporting.report.build import images_of
from cifar_fast.reporting.results import row, summarize


def test_few_classes_have_their_matrix():
    names = ["cat", "苹果", "a\x1b[1m\nb"]
    lines = scores_text(scores_of_predicted(np.array([0, 0, 1]), np.array([0, 1, 1]), names), names).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["class", "accuracy"], ["cat", "100.00%"], ["苹果", "50.00%"], ["a\\x1b[1m\\nb", "–"], ["all", "66.67%"]]
    assert lines[2].split()[2:] == ["1", "1", "0"] and "of 3 images; rows true, columns predicted" in lines[-1]


def test_balanced_accuracy_stands_beside_accuracy_where_classes_are_unequal():
    "Of 90 images of one class all are right, of 10 of the other two: 92 %, and the mean of 100 and 20 %."
    labels = np.repeat([0, 1], [90, 10])
    found = scores_of_predicted((np.arange(100) >= 98).astype(int), labels, ["a", "b"])
    card = replace(CARD, vocab=["a", "b"], split="test", metrics=Metrics(**found), epochs=1)
    assert card.metrics.balanced_accuracy == pytest.approx(0.6)
    assert [value for _, value in card.accuracies()] == pytest.approx([0.92, 0.6])
    assert "92.00%, balanced 60.00%" in result_text(card) and "60.00% balanced accuracy" in model_card(card)
    assert last_record(card, Path("x"))["balanced_accuracy"] == row(card)["balanced_accuracy"] == pytest.approx(0.6)
    assert "balanced" not in scores_text(found, ["a", "b"])  # evaluate says it below
    measured = {k: v for k, v in row(card).items() if v is not None}
    lines = table(summarize(pd.DataFrame([made(**measured), made(recipe="b", recipe_id="b")]), {}))
    assert "balanced %" in table_text(lines) and "60.00" in table_text(lines) and "TTA" not in table_text(lines)
    assert "balanced %" not in table_text(lines[1:])
    equal = scores_of_predicted(np.zeros(20, int), np.repeat([0, 1], 10), ["a", "b"])
    assert Metrics(**equal).balanced_accuracy is None and row(replace(card, metrics=None))["balanced_accuracy"] is None


def test_many_classes_have_their_most_frequent_error():
    names = [f"species_{i:03}_with_a_long_name" for i in range(120)]
    labels = np.repeat(np.arange(120), 3)
    predicted = labels.copy()
    predicted[3:6] = 7, 7, 1  # of class 1
    lines = scores_text(scores_of_predicted(predicted, labels, names), names).splitlines()
    assert len(names) > MATRIX and len(lines) == 122 and max(map(len, lines)) <= 100
    assert lines[2].split() == [names[1], "33.33%", "3", names[7], "(2)"]
    assert lines[1].split() == [names[0], "100.00%", "3"]


@pytest.mark.parametrize("on, items", [("test", None), ("held-out", np.array([0, 9, 1, 2, 3]))])
def test_predictions_of_images_that_a_dataset_lacks_are_refused(on, items):
    images = Arrays(np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, int))
    source = Source("mine", images, images, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "x", (), "")
    some = Predictions(np.zeros(5, int), np.zeros(5, int), np.tile([1, 0], (5, 1)), ("a", "b"), "x", on, items)
    with pytest.raises(PredictionsError, match="mine has only [48]"):
        images_of(some, source)


def test_a_class_may_have_the_joiners_of_persian_hindi_and_emoji():
    "They do nothing to a terminal; what else cannot be printed is refused."
    names = ["می\u200cخواهم", "क्\u200dष", "👩\u200d🌾"]
    assert class_names(names) == names
    with pytest.raises(ValueError, match="no class name"):
        class_names(["a\u202eb"])


def test_a_file_of_a_run_stands_for_its_folder():
    for name in ("model.onnx", "model.int8.tflite", "model.micro.tflite", "learner.pkl", "card.json"):
        assert run_folder(f"exports/net/{name}") == Path("exports/net")
    assert engine_of(type("TflitePredictor", (), {})()) == "TflitePredictor"
