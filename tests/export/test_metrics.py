"""Accuracy and confusion as text, of few classes and of many."""

import numpy as np
import pytest

from cifar_fast.data.arrays import Arrays
from cifar_fast.data.sources import Source
from cifar_fast.export.metrics import MATRIX, scores_of_predicted, scores_text
from cifar_fast.export.predictions import Predictions, PredictionsError
from cifar_fast.reporting.report.build import images_of


def test_few_classes_have_their_matrix():
    names = ["cat", "苹果", "a\x1b[1m\nb"]
    lines = scores_text(scores_of_predicted(np.array([0, 0, 1]), np.array([0, 1, 1]), names), names).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["class", "accuracy"], ["cat", "100.00%"], ["苹果", "50.00%"], ["a\\x1b[1m\\nb", "–"], ["all", "66.67%"]]
    assert lines[2].split()[2:] == ["1", "1", "0"] and "of 3 images; rows true, columns predicted" in lines[-1]


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
