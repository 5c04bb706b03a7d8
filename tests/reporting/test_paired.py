"""The interval of a paired difference and the test of it, against published examples, scipy and draws."""

from functools import cache

import numpy as np
import pytest

from cifar_fast.reporting.compare import newcombe, paired
from cifar_fast.reporting.compare.paired import mcnemar
from cifar_fast.utils.statistics import interval_text, wilson


@pytest.mark.parametrize("counts, published", [
    # Altman, Machin, Bryant and Gardner, Statistics with Confidence (2000), table 6.2
    ((14, 5, 0, 22), (0.011, 0.226)),
    # Cavo et al. (2012), as in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), ch. 8
    ((59, 6, 16, 80), (-0.1186, -0.0046)),
])
def test_newcombes_interval_is_that_of_published_examples(counts, published):
    digits = 3 if published[0] == 0.011 else 4
    assert tuple(round(x, digits) for x in newcombe(*counts)) == published


def test_newcombes_interval_turns_with_its_runs_and_stays_in_range():
    for counts in ((10, 4, 9, 2), (0, 5, 0, 0), (20, 0, 0, 0), (0, 0, 0, 7), (0, 3, 4, 0), (9000, 500, 300, 200)):
        low, high = newcombe(*counts)
        both, first, second, neither = counts
        assert newcombe(both, second, first, neither) == pytest.approx((-high, -low))
        assert -1 <= low <= (first - second) / sum(counts) <= high <= 1
    # Nets that err on the same images are told apart by fewer of them.
    alike, unlike = newcombe(880, 20, 40, 60), newcombe(828, 72, 92, 8)
    assert alike[1] - alike[0] < 0.7 * (unlike[1] - unlike[0])


def test_wilsons_interval_is_that_of_published_examples():
    "R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statist. Med. 17 (1998), table I."
    for k, n, published in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)),
                            (1, 29, (0.0061, 0.1718))):
        assert wilson(k / n, n) == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("n, shares", [
    (60, (0.6, 0.2, 0.1, 0.1)), (300, (0.7, 0.12, 0.06, 0.12)), (300, (0.8, 0.06, 0.06, 0.08)),
    (10_000, (0.84, 0.03, 0.022, 0.108)),
])
def test_the_interval_covers_the_truth_as_often_as_it_says(n, shares, monkeypatch):
    "4,000 draws each: 95 % are expected, with a standard error of 0.34."
    monkeypatch.setattr(paired, "wilson", cache(wilson))
    draws = np.random.default_rng(1).multinomial(n, shares, 4000).tolist()
    intervals = np.array([newcombe(*counts) for counts in draws])
    truth = shares[1] - shares[2]
    assert 0.935 < ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean() < 0.965


def test_mcnemar_is_exact():
    assert mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(0, 0) == 1.0 and mcnemar(7, 7) == 1.0
    assert mcnemar(6, 16) == pytest.approx(0.05248, abs=1e-5)
    # Nothing is celebrated that is there by chance: of equal nets one in twenty is called different, at most.
    draws = np.random.default_rng(2).multinomial(2000, (0.84, 0.04, 0.04, 0.08), 500).tolist()
    assert np.mean([mcnemar(b, c) < 0.05 for _, b, c, _ in draws]) < 0.06


def test_an_accuracy_of_few_images_says_how_far_it_may_be_off():
    assert interval_text(354 / 359, 359) == "n = 359, 95 % interval 96.8 to 99.4 %"
    assert interval_text(1.0, 5) == "n = 5, 95 % interval 56.6 to 100.0 %"
    assert interval_text(0.9, 10_000) == interval_text(None, 5) == interval_text(0.9, None) == ""
    assert interval_text(0.9, float("nan")) == ""
