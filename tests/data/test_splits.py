"""What is held out of train."""

from dataclasses import replace

import numpy as np
import pytest

from cifar_fast.all import make_dls, test_dl
from cifar_fast.data.block import split_rows
from cifar_fast.data.errors import DataError


@pytest.mark.parametrize("valid, count", [(0.1, 144), (0.25, 360), (100, 100), (10, 10)])
def test_fractions_and_counts_held_out(digits, valid, count):
    train, held = split_rows(digits, valid, "held_out", 42)
    assert len(held) == count and len(train) + len(held) == 1438
    assert sorted([*train, *held]) == list(range(1438))
    # Stratified: each class is held out in its fraction of the whole, rounded to an image.
    expected = np.bincount(digits.train.labels) * count / 1438
    assert np.abs(np.bincount(digits.train.labels[held], minlength=10) - expected).max() <= 1


def test_splits_follow_the_seed(digits):
    one, again, other = (split_rows(digits, 0.1, "held_out", s)[1].tolist() for s in (1, 1, 2))
    assert one == again != other


def test_nothing_held_out(digits):
    train, held = split_rows(digits, 0, "held_out", 42)
    assert train.tolist() == list(range(1438)) and held.tolist() == []


def test_published_validates_on_the_test_set(digits):
    train, held = split_rows(digits, 0, "test", 42)
    assert train.tolist() == list(range(1438)) and held.tolist() == list(range(1438, 1797))
    with pytest.raises(DataError, match="validate_on=test.*digits"):
        split_rows(replace(digits, test=None), 0, "test", 42)


@pytest.mark.parametrize("valid", [1e-4, 0.005, 1, 9, 1429, 1438, 5000, 0.9999])
def test_too_little_on_one_side(digits, valid):
    # 1e-4 rounds to no image at all: it is refused, not taken for valid=0.
    with pytest.raises(DataError, match=f"valid={valid:g} .* 1438 .* 10 classes"):
        split_rows(digits, valid, "held_out", 42)


def test_no_test_set_to_load(digits):
    none = replace(digits, test=None)
    with pytest.raises(DataError, match="digits"):
        test_dl(make_dls(none), none)
