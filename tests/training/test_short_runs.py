"""Runs on few images: batch norm's statistics are not young, and the batch size fits."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny, trained
from toys import equal

from cifar_fast.data.errors import DataError
from cifar_fast.training import fit as fit_module
from cifar_fast.training.prepare import prepare, with_fitting_bs


def running(model):
    return {k: v for k, v in model.state_dict().items() if "running" in k}


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "running" not in k and "tracked" not in k}


def test_a_short_run_computes_the_statistics_anew_and_trains_as_before(digits, monkeypatch):
    recipe = replace(tiny("epochs=1", "valid=0.2"), augment=())
    short = trained(recipe)
    monkeypatch.setattr(fit_module, "YOUNG", 0)
    long = trained(recipe)
    assert equal(weights(short.run.learn.model), weights(long.run.learn.model))
    assert short.frame["train_loss"].equals(long.frame["train_loss"])
    # The first batch norm sees the first convolution of the images: its mean follows from them alone.
    model, dls = short.run.learn.model, short.run.learn.dls
    images, inputs = torch.cat([x.as_subclass(torch.Tensor) for x, _ in dls.train]), []
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        model.eval()(images)
    mean = inputs[0].mean((0, 2, 3))
    assert torch.allclose(running(model)[f"{name_of(model, norm)}.running_mean"], mean, rtol=0.1, atol=0.02)
    assert not equal(running(model), running(long.run.learn.model))
    assert short.frame["valid_ema_accuracy"].iloc[-1] >= long.frame["valid_ema_accuracy"].iloc[-1]


def name_of(model, module):
    return next(name for name, m in model.named_modules() if m is module)


@pytest.mark.parametrize("images, bs", [(240, 32), (256, 256), (255, 32), (16, 4), (3, 1), (1, 1)])
def test_a_batch_size_that_is_too_large_becomes_smaller(digits, images, bs, capsys):
    source = replace(digits, train=replace(digits.train, images=digits.train.images[:images],
                                           labels=digits.train.labels[:images]))
    assert with_fitting_bs(tiny("bs=256", "valid=0"), source).bs == bs
    err = capsys.readouterr().err
    assert (f"bs={bs} instead of the recipe's 256: there are {images} training images" in err) == (bs != 256)


def test_one_that_was_typed_is_refused(digits):
    few = replace(digits, train=replace(digits.train, images=digits.train.images[:100],
                                        labels=digits.train.labels[:100]))
    recipe = tiny("bs=256", "valid=0")
    with pytest.raises(DataError, match="bs=256 is more than the 100 training images"):
        prepare(recipe, few, typed=["bs=256"])
    assert prepare(recipe, few).recipe.bs == 16
