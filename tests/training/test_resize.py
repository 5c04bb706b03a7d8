"""Smaller images early in a run: which batches are shrunk, and that nothing else is."""

import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from cifar_fast.all import override, progressive
from cifar_fast.recipe import RecipeError, check, load_recipe
from cifar_fast.training.batch_transforms import BatchTransforms


class Sizes(Callback):
    order = 45  # after everything that changes a batch

    def __init__(self):
        self.seen = []

    def before_batch(self):
        self.seen.append((self.training, tuple(self.x.shape), float(self.x.mean())))


def sizes(epochs=5, side=32, **kw):
    batches = [(torch.full((4, 3, side, side), 2.0), torch.zeros(4, dtype=torch.long)) for _ in range(2)]
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    learn = Learner(DataLoaders(batches, batches[:1]), net, loss_func=nn.CrossEntropyLoss())
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    learn.fit(epochs, cbs=[BatchTransforms([progressive(**kw)], classes=2), watch := Sizes()])
    return watch.seen


def test_small_images_until_the_named_part_and_whole_ones_after_it():
    seen = sizes(epochs=5, size=16, until=0.4)
    assert [shape[-1] for training, shape, _ in seen if training] == [16] * 4 + [32] * 6
    assert all(shape == (4, 3, 32, 32) for training, shape, _ in seen if not training)


def test_an_even_image_keeps_its_value():
    assert all(mean == pytest.approx(2.0) for *_, mean in sizes(size=24, until=0.5))


def test_images_are_never_enlarged():
    assert {shape[-1] for _, shape, _ in sizes(side=16, size=24, until=0.9)} == {16}


@pytest.mark.parametrize("change, told", [
    ("resize.size=4", "resize.size=4: expected at least 8"),
    ("resize.until=1", "resize.until=1: expected a fraction of training"),
    ("resize.until=-0.5", "resize.until=-0.5: expected a fraction of training"),
])
def test_values_that_cannot_work(change, told):
    with pytest.raises(RecipeError, match=told):
        check(override(load_recipe("sprint"), [change]))


def test_it_can_be_switched_off_and_on():
    assert override(load_recipe("sprint"), ["resize=none"]).resize is None
    assert override(load_recipe("strided"), ["resize=progressive"]).resize().size == 24
