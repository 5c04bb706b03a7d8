"""Data-parallel training with processes on a CPU: the same step, every image once, equal weights."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from kills import bytes_that_differ
from processes import fitted, together
from tiny import MIXED, tiny, trained
from torch import nn

from cifar_fast.data.block import make_dls, test_dl
from cifar_fast.recipe import load_recipe, override
from cifar_fast.training.callbacks.synced_batch_norm import count_images, synchronise
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import prepare
from cifar_fast.utils.ranks import here

# ---------------------------------------------------------------- one step


class Gradients(Callback):
    "Keeps the gradients of the first step, in float64 so that only mistakes show, and ends the fit."

    order = 95

    def __init__(self, frozen):
        self.frozen = frozen

    def before_batch(self):
        self.learn.xb = tuple(x.double() for x in self.xb)
        for module in self.learn.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(not self.frozen)

    def before_step(self):
        self.found = torch.cat([p.grad.flatten() for p in self.learn.model.parameters()])
        raise CancelFitException


def gradient(sync_bn):
    "Of one step on 50 images, which two or three processes cannot share evenly, without augmentation."
    recipe = replace(tiny("bs=50", "epochs=1", "valid=0"), augment=(), resize=None, ema=None, sync_bn=sync_bn)
    run, gradients = prepare(recipe), Gradients(frozen=not sync_bn)
    run.learn.model.double()
    run.learn.add_cb(gradients)
    fit(run)
    return gradients.found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("sync_bn", [False, True])  # False: with batch norm's statistics held, as each has its own
def test_gradient_of_a_step_is_that_of_one_process(digits, tmp_path, count, sync_bn):
    alone, several = gradient(sync_bn), together(count, partial(gradient, sync_bn), tmp_path)
    for found in several:
        assert torch.equal(found, several[0])
        assert (found - alone).norm() < 1e-7 * alone.norm()  # torch divides by 3 in float32
    assert alone.norm() > 0.1


def two_images():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def normalised():
    "Of two images by three processes: the third has the first one's, as in a last batch."
    rank, images, layer = here().rank, two_images(), nn.BatchNorm2d(3).double()
    model = nn.Sequential(layer)
    synchronise(model)
    count_images(model, rank < 2)
    return model(images[rank:rank + 1] if rank < 2 else images[:1]).detach(), layer.running_mean, layer.running_var


def test_a_process_without_images_has_no_part_in_synchronised_batch_norm(tmp_path):
    layer, several = nn.BatchNorm2d(3).double(), together(3, normalised, tmp_path)
    expected = layer(two_images()).detach()
    for rank, (found, mean, variance) in enumerate(several):
        assert torch.allclose(found[0], expected[rank if rank < 2 else 0])
        assert torch.allclose(mean, layer.running_mean) and torch.allclose(variance, layer.running_var)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("ranks_", [2, 3, 4])
@pytest.mark.parametrize("skip", [0, 3])
def test_every_image_once_an_epoch_in_the_order_of_one_process(digits, ranks_, skip):
    # 1438 images: the last batch of 11 has 8, that of 1437 has 1, which is less than there are processes.
    for bs in (11, 1437):
        whole, *parts = [dl_of(digits, bs) for _ in range(1 + ranks_)]
        skip = skip if bs == 11 else 0
        for rank, dl in enumerate(parts):
            dl.shard(rank, ranks_)
            assert len(dl) == len(whole)
        expected = read(whole, skip)
        found = [read(dl, skip) for dl in parts]
        for k, labels in enumerate(expected):
            shares = [dl.share(skip + k) for dl in parts]
            assert {n for _, n in shares} == {len(labels)} and sum(own for own, _ in shares) == len(labels)
            assert max(own for own, _ in shares) - min(own for own, _ in shares) <= 1 and shares[0][0] > 0
            joined = [found[rank][k][:own] for rank, (own, _) in enumerate(shares)]
            assert np.concatenate(joined).tolist() == labels.tolist()
            assert all(len(found[rank][k]) for rank in range(ranks_))  # everyone takes the step
    valid = dl_of(digits, 64, "valid")
    valid.shard(ranks_ - 1, ranks_)
    assert len(np.concatenate(read(valid, 0))) == sum(valid.share(k)[0] for k in range(len(valid)))
    assert len(np.concatenate(read(valid.whole(), 0))) == 103


def dl_of(digits, bs, which="train"):
    dls = make_dls(digits, bs=bs, drop_last=False, seed=1, device="cpu", valid=0 if which == "train" else 103)
    return getattr(dls, which)


def read(dl, skip):
    dl.set_epoch(2)
    dl.skip_batches(skip)
    return [np.asarray(y) for _, y in dl]


def test_processes_draw_their_own_augmentation(digits):
    run = prepare(tiny("bs=2", "valid=0"))
    dl, seen = run.learn.dls.train, []
    with torch.no_grad():
        for place in ((0, 1), (0, 2), (1, 2), (1, 2)):
            dl.shard(*place)
            dl.set_epoch(0)
            seen.append(next(iter(dl))[0][:1])
    alone, first, second, again = seen
    assert torch.equal(second, again) and not torch.equal(alone, first)


# ---------------------------------------------------------------- a fit


def assert_same(one, other):
    for name in ("weights", "ema"):
        assert bytes_that_differ(one[name], other[name]) == 0
    assert {k: v for k, v in one.items() if k not in ("weights", "ema", "losses")} == {
        k: v for k, v in other.items() if k not in ("weights", "ema", "losses")}
    assert list(map(float, one["losses"])) == list(map(float, other["losses"]))


def test_all_processes_have_equal_weights_averages_and_history(digits, tmp_path):
    # 537 images to train on: a last batch of one; recomputed batch norm, mixing, the best epoch kept
    several = together(2, partial(fitted, *MIXED, "valid=901", "bs=67", "drop_last=false", "keep=best", "clip=1"),
                       tmp_path)
    assert_same(*several)
    one = several[0]
    assert sum(one["mixed"].values()) == 2 * (2 * 9 - 1)  # slices of 9 batches in 2 epochs, the last without a second
    assert all(torch.isfinite(v).all() for v in one["weights"].values() if v.is_floating_point())
    for row in one["rows"]:  # all 901 images were counted, and each once
        for column in ("valid_accuracy", "valid_ema_accuracy"):
            assert row[column] * 901 == pytest.approx(round(row[column] * 901), abs=1e-6)


def test_synchronised_batch_norm_in_a_run_of_few_steps(digits, tmp_path):
    "Its statistics are recomputed as plain means, without a momentum."
    several = together(2, partial(fitted, "sync_bn=true", "epochs=1"), tmp_path)
    assert_same(*several)
    assert several[0]["rows"][-1]["valid_accuracy"] > 0.15


def validated(target):
    recipe = tiny("epochs=6", f"target={target}", "sched=plateau", "fit=constant", "precision=bf16", "bs=64")
    result = trained(recipe)
    model, dl = result.run.learn.model.eval(), result.run.learn.dls.valid.whole()
    with torch.no_grad():
        right = sum(int((model(x.as_subclass(torch.Tensor)).argmax(1) == y).sum()) for x, y in dl)
    return len(result.state.rows), result.state.rows[-1], right / 900


def test_stopping_counts_the_images_of_all_processes(digits, tmp_path):
    one, other = together(2, partial(validated, 0.3), tmp_path)
    assert one[1] == other[1] and one[0] == other[0] < 6
    assert one[1]["valid_ema_accuracy"] >= 0.3
    assert one[1]["valid_accuracy"] == pytest.approx(one[2], abs=0.01)  # in bf16 against fp32


def test_accuracy_is_that_of_one_process(digits, tmp_path):
    settings = ("epochs=4", "valid=400", "seed=3")
    one, other = together(2, partial(fitted, *settings), tmp_path)
    alone = fitted(*settings)
    assert one["best"]["accuracy"] > 0.8 and abs(one["best"]["accuracy"] - alone["best"]["accuracy"]) < 0.08


def right_of_test(seed):
    "Test images that a model of ten epochs classifies rightly, of 359."
    run = prepare(override(load_recipe("digits"), ["epochs=10", f"seed={seed}", "device=cpu"]))
    fit(run)
    model = run.learn.model.eval()
    with torch.no_grad():
        return sum(int((model(x.as_subclass(torch.Tensor)).argmax(1) == y).sum())
                   for x, y in test_dl(run.learn.dls, run.source))


@pytest.mark.slow  # five seeds twice; one short run is compared above
def test_accuracy_of_five_seeds_is_that_of_one_process(digits, tmp_path, capsys):
    alone, several = [], []
    for seed in range(5):
        alone.append(right_of_test(seed))
        one, other = together(2, partial(right_of_test, seed), tmp_path)
        assert one == other
        several.append(one)
    with capsys.disabled():
        print(f"\nof 359: one process {alone}, two processes {several}")
    assert abs(np.mean(several) - np.mean(alone)) < 359 / 100


@pytest.mark.slow  # half a minute of compiling; eager steps are tested above
def test_compiled_steps(digits, tmp_path):
    one, other = together(2, partial(fitted, "compile=on", "epochs=1"), tmp_path)
    assert_same(one, other)
    eager = together(2, partial(fitted, "epochs=1"), tmp_path)[0]
    assert one["rows"][-1]["train_loss"] == pytest.approx(eager["rows"][-1]["train_loss"], abs=0.05)
