"""Runs on few images: batch norm's statistics are not young, and the batch size fits."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny, trained
from toys import equal

from cifar_fast.data.errors import DataError
from cifar_fast.recipe import describe
from cifar_fast.training import fit as fit_module
from cifar_fast.training.callbacks.ema import ema, fitting_decay
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


@pytest.mark.parametrize("images, bs", [(1437, 128), (240, 16), (100, 8), (10, 8), (5, 4), (1, 1)])
def test_a_batch_size_that_gives_few_batches_becomes_smaller(digits, images, bs, capsys):
    source = few(digits, images)
    assert with_fitting_bs(tiny("bs=256", "valid=0"), source).bs == bs
    assert f"bs={bs} instead of the recipe's 256: there are {images:,} training images" in capsys.readouterr().err
    for enough in (bs, 1):
        assert with_fitting_bs(tiny(f"bs={enough}", "valid=0"), source).bs == enough
    assert with_fitting_bs(tiny("bs=256", "valid=0"), source, ["bs=256"]).bs == 256
    assert not capsys.readouterr().err


def few(digits, images):
    return replace(digits, train=replace(digits.train, images=digits.train.images[:images],
                                         labels=digits.train.labels[:images]))


@pytest.mark.parametrize("warmup, steps, decay", [
    (True, 15_600, 0.999), (True, 1_000, 0.999), (True, 600, 0.9833), (True, 5, 0.5),
    (False, 10_000, 0.999), (False, 600, 0.9833), (False, 5, 0.5)])
def test_an_average_covers_a_tenth_of_a_short_run(warmup, steps, decay):
    assert fitting_decay(0.999, warmup, steps) == decay


def test_a_long_average_of_a_long_run_stays_one():
    decay = fitting_decay(0.99999, False, 234_000)
    assert decay == pytest.approx(1 - 1 / 23_400, abs=1e-6) and ema(decay=decay).decay == decay


def test_the_average_of_a_short_run_is_recorded_and_a_typed_one_kept(digits, capsys):
    recipe, source = tiny("valid=0", "ema=ema", "ema.decay=0.999"), few(digits, 640)
    run = prepare(recipe, source)  # two epochs of ten batches
    assert describe(run.recipe)["ema"]["args"] == {"decay": 0.5}
    assert "ema.decay=0.5 instead of the recipe's 0.999: the run has 20 steps" in capsys.readouterr().err
    kept = prepare(recipe, source, typed=["ema=ema", "ema.decay=0.999"])
    assert describe(kept.recipe)["ema"]["args"] == {"decay": 0.999}
    assert "ema.decay=0.5 averages a tenth" in capsys.readouterr().err


def test_one_that_was_typed_is_refused(digits):
    recipe = tiny("bs=256", "valid=0")
    with pytest.raises(DataError, match="bs=256 is more than the 100 training images"):
        prepare(recipe, few(digits, 100), typed=["bs=256"])
    assert prepare(recipe, few(digits, 100)).recipe.bs == 8
