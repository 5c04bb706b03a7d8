"""Unequal classes: weights by hand, a sampler's frequencies, balanced accuracy, and runs that go on with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import CancelFitException
from tiny import MIXED, tiny

from cifar_fast.data.arrays import Arrays
from cifar_fast.data.balance import balanced_sample, class_weights, unequal
from cifar_fast.data.block import make_dls
from cifar_fast.export.measure import best_epoch
from cifar_fast.runs.data_lines import data_lines
from cifar_fast.training.callbacks.stopping import Patience, Target
from cifar_fast.training.fit import fit
from cifar_fast.training.losses import cross_entropy
from cifar_fast.training.metrics import BalancedAccuracy
from cifar_fast.training.prepare import prepare
from cifar_fast.training.state import TrainState

LABELS = np.repeat([0, 1], [60, 20])


@pytest.fixture(scope="module")
def rare(digits):
    "Digits with 300 training images, of which 12 are of class 0 and the other nine have 32 each."
    labels = digits.train.labels
    rows = np.concatenate([np.flatnonzero(labels == c)[:12 if c == 0 else 32] for c in range(10)])
    return replace(digits, train=Arrays(digits.train.images[rows], labels[rows]))


@pytest.mark.parametrize("counts, expected", [([10, 14], False), ([10, 15], True), ([10, 0, 14], False), ([7], False)])
def test_what_is_unequal(counts, expected):
    assert unequal(counts) is expected


def test_weights_by_hand():
    "60 and 20 of 80: 80/(2·60) and 80/(2·20); a class without images has no weight."
    weights = class_weights(LABELS, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 0])
    assert weights[LABELS].mean() == pytest.approx(1)


def test_a_loss_is_weighted_by_what_an_image_shows():
    logits, labels = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1])
    weight = torch.tensor([2 / 3, 2.0])
    each = F.cross_entropy(logits, labels, reduction="none")
    expected = (2 / 3 * each[:3].sum() + 2 * each[3]) / 4
    assert float(cross_entropy(weight)(logits, labels)) == pytest.approx(float(expected))
    assert float(cross_entropy(weight)(logits, F.one_hot(labels).float())) == pytest.approx(float(expected))
    # A mixed image, three parts of 0 and one of 1, has the weight 0.75·2/3 + 0.25·2 = 1, so its target stays.
    mixed = torch.tensor([[0.75, 0.25]])
    assert float(cross_entropy(weight)(logits[:1], mixed)) == pytest.approx(float(F.cross_entropy(logits[:1], mixed)))
    smooth = F.cross_entropy(logits[:1], labels[:1], label_smoothing=0.2)
    assert float(cross_entropy(weight, label_smoothing=0.2)(logits[:1], labels[:1])) == pytest.approx(
        float(2 / 3 * smooth))


def test_a_weighted_loss_is_least_at_the_smoothed_target():
    "torch's own weights would move the least of a frequent image half way to the rare class."
    weight = torch.from_numpy(class_weights(np.repeat([0, 1], [2000, 100]), 2))
    logits = torch.zeros(1, 2, requires_grad=True)
    for _ in range(300):
        loss = cross_entropy(weight, label_smoothing=0.1)(logits, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    assert logits.softmax(1)[0].tolist() == pytest.approx([0.95, 0.05], abs=1e-3)


def test_every_class_is_sampled_equally_often():
    labels = np.repeat([3, 5, 9], [70, 7, 25])
    places = balanced_sample(labels, np.random.default_rng(0))
    assert len(places) == 102 and np.bincount(labels[places])[[3, 5, 9]].tolist() == [34, 34, 34]
    times = np.bincount(places, minlength=102)
    assert times[:70].max() == 1 and set(times[70:77]) == {4, 5} and set(times[77:]) == {1, 2}
    equal = np.repeat([0, 1], [30, 30])
    assert sorted(balanced_sample(equal, np.random.default_rng(1))) == list(range(60))


def test_a_balanced_epoch_repeats_goes_on_and_has_as_many_batches(rare):
    kw = {"bs": 32, "seed": 5, "drop_last": False}
    plain, dls = make_dls(rare, **kw).train, make_dls(rare, balanced=True, **kw).train
    first, second = [[y.clone() for _, y in dls] for _ in range(2)]
    assert len(first) == len(dls) == len(plain) and sum(map(len, first)) == 300
    assert np.bincount(torch.cat(first)).tolist() == [30] * 10
    assert not torch.equal(torch.cat(first), torch.cat(second))
    other = make_dls(rare, balanced=True, workers=2, **kw).train
    other.set_epoch(1)
    other.skip_batches(4)
    assert [y.tolist() for _, y in other] == [y.tolist() for y in second[4:]]


def test_the_best_epoch_is_that_of_balanced_accuracy_where_there_is_one(capsys):
    rows = [{"epoch": 1, "valid_accuracy": 0.9, "valid_balanced_accuracy": 0.5},
            {"epoch": 2, "valid_accuracy": 0.8, "valid_balanced_accuracy": 0.7},
            {"epoch": 3, "valid_accuracy": 0.85, "valid_balanced_accuracy": 0.6}]
    state = TrainState(rows=rows[:2])
    assert state.is_best and state.best == {"epoch": 2, "accuracy": 0.7} and state.watches == "balanced accuracy"
    with pytest.raises(CancelFitException):
        Target(state, 0.7).after_epoch()
    state.rows.append(rows[2])
    assert not state.is_best
    with pytest.raises(CancelFitException):
        Patience(state, 1).after_epoch()
    assert capsys.readouterr().out.count("validation balanced accuracy") == 2
    best = best_epoch(state.frame())
    assert (best.epoch, best.accuracy) == (2, 0.8)
    plain = TrainState(rows=[{k: v for k, v in row.items() if "balanced" not in k} for row in rows])
    assert plain.best == {"epoch": 1, "accuracy": 0.9} and plain.watches == "accuracy"


def test_balanced_accuracy_by_hand():
    from types import SimpleNamespace

    metric = BalancedAccuracy(3)
    for labels, predicted in (([0, 0, 0], [0, 0, 1]), ([0, 1], [0, 0])):
        metric.accumulate(SimpleNamespace(training=False, y=torch.tensor(labels), pred=torch.eye(3)[predicted]))
    assert metric.value == pytest.approx((3 / 4 + 0) / 2)  # class 2 has no images


@pytest.mark.parametrize("changes, column", [
    (["balance=loss", *MIXED], "valid_ema_balanced_accuracy"),
    (["balance=sample", "ema=none"], "valid_balanced_accuracy"),
])
def test_a_balanced_run_shows_balanced_accuracy(rare, changes, column):
    run = prepare(tiny("epochs=1", "bs=32", "valid=60", *changes), rare)
    labels = rare.train.labels[[int(i) for i in run.learn.dls.train_ds.items]]
    if "balance=loss" in changes:
        assert run.learn.loss_func.weight.tolist() == pytest.approx(class_weights(labels, 10).tolist())
    else:
        assert run.learn.dls.train.labels.tolist() == labels.tolist()
    said = " ".join(" ".join(data_lines(replace(run, recipe=replace(run.recipe, keep="best", patience=3)))).split())
    assert "keep=best and patience=3 go by balanced accuracy" in said and "go by" not in " ".join(data_lines(run))
    row = fit(run).state.rows[-1]
    assert 0 <= row[column] <= 1 and {c for c in row if "balanced" in c} == {column}
    assert "balanced_accuracy" not in str(fit(prepare(tiny("epochs=1"), None)).state.rows)
