"""Intervals of an accuracy."""

import pytest

from cifar_fast.utils.statistics import mean_interval


def test_the_interval_of_a_mean_is_students():
    # t with 2 degrees of freedom at 97.5 %, 4.302653, times 0.01/√3
    assert mean_interval([0.51, 0.52, 0.53]) == pytest.approx((0.52 - 0.0248414, 0.52 + 0.0248414), abs=1e-6)
    assert mean_interval([0.5]) is None


def test_no_accuracy_is_below_0_or_above_1():
    assert mean_interval([0.97, 0.99]) == (pytest.approx(0.98 - 0.1270620), 1.0)
    assert mean_interval([0.0, 0.02]) == (0.0, pytest.approx(0.01 + 0.1270620))
