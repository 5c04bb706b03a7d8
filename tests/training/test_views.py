"""Several views of each image: the same images and mixing in each, other augmentation, their divergence in the loss."""

import itertools
import math

import numpy as np
import pytest
import torch
from breaking import resume
from fastai.callback.core import Callback
from kills import RUN, bytes_that_differ, history, weights
from tiny import MIXED, tiny, trained

from cifar_fast.cli.main import main
from cifar_fast.recipe import RecipeError, check
from cifar_fast.training.prepare import prepare
from cifar_fast.training.views import divergence

VIEWS = ("views=2", "views.weight=5", "resize=none", "compile=off")


def test_the_divergence_is_the_entropy_of_the_mean_less_the_mean_entropy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 7, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)

    def entropy(p):
        return -(p * np.log(p)).sum(-1)

    right = (entropy(p.mean(0)) - entropy(p).mean(0)).mean()
    assert float(divergence(torch.tensor(logits).reshape(21, 4), 3)) == pytest.approx(right, rel=1e-9)
    alike = torch.tensor(logits[0], dtype=torch.float32).repeat(2, 1)
    assert float(divergence(alike, 2)) == pytest.approx(0, abs=1e-6)
    apart = torch.tensor([[50.0, 0], [0, 50]])  # one image, seen as two classes
    assert float(divergence(apart, 2)) == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_every_image_twice_augmented_anew(digits, workers):
    one, two = (prepare(tiny("resize=none", f"workers={workers}", f"views={n}")).learn.dls for n in (1, 2))
    assert len(one.train) == len(two.train) == 8
    changed = 0
    for (x, y), (xs, ys) in itertools.islice(zip(one.train, two.train, strict=True), 3):
        assert len(x) == 64 and len(xs) == 128
        assert torch.equal(ys[:64], y) and torch.equal(ys[64:], y)
        changed += sum(not torch.equal(a, b) for a, b in zip(*xs.chunk(2), strict=True))
    assert changed > 0.8 * 3 * 64
    x, _ = two.valid.one_batch()
    assert len(x) == len(one.valid.one_batch()[0]) == 500


class Watch(Callback):
    order = 95

    def __init__(self):
        self.batches = []

    def before_batch(self):
        if self.training:
            self.target = self.y.clone()

    def after_loss(self):
        if self.training:
            self.batches.append((self.target, self.pred.detach().clone(), float(self.loss)))


def test_views_are_mixed_alike_and_their_divergence_is_in_the_loss(digits):
    watch = Watch()
    result = trained(tiny(*VIEWS, *MIXED), watch)
    assert {target.ndim for target, *_ in watch.batches} == {1, 2}
    plain = result.run.recipe.loss().func
    for target, logits, loss in watch.batches:
        first, second = target.chunk(2)
        assert torch.equal(first, second)
        assert loss == pytest.approx(float(plain(logits, target)) + 5 * float(divergence(logits, 2)), rel=1e-5)
    frame = result.frame
    assert frame["images_per_second"].iloc[0] == pytest.approx(8 * 64 / frame["seconds"].iloc[0])


def test_without_a_weight_the_views_are_only_more_images(digits):
    watch = Watch()
    result = trained(tiny(*VIEWS, "views.weight=0", "epochs=1"), watch)
    plain = result.run.recipe.loss().func
    assert all(loss == pytest.approx(float(plain(logits, target)), rel=1e-5) for target, logits, loss in watch.batches)


def test_it_resumes_to_the_same_weights(digits, broken, tmp_path):
    whole, views = tmp_path / "whole", ("views=2", "mix=mixing")
    assert main([*RUN, f"exports={whole}", *views]) == 0
    exports = broken(5, *views)
    assert resume(exports) == 0
    assert bytes_that_differ(weights(whole), weights(exports)) == 0
    assert history(exports).equals(history(whole))


@pytest.mark.parametrize("changes, said", [
    (["views=0"], "views=0"), (["views=1.5"], "views=1.5"), (["views.weight=3"], "add views=2"),
    (["views=2", "views.weight=-1"], "views.weight=-1"),
])
def test_settings_that_cannot_work(changes, said):
    with pytest.raises(RecipeError, match=said):
        check(tiny(*changes))
