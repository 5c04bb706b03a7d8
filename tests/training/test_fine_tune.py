"""fit=fine_tune: fastai's own rates, momentums, frozen groups and weights, in one fit."""

from functools import partial

import numpy as np
import pytest
import torch
from starts import exported
from tiny import tiny, trained
from toys import Watch, equal, state, toy

from cifar_fast.models import create_model
from cifar_fast.models.parts import stem_stages_head
from cifar_fast.runs.dryrun import preview
from cifar_fast.runs.started import started
from cifar_fast.training import optimizers
from cifar_fast.training.fits import fine_tune
from cifar_fast.training.lr_finder import search
from cifar_fast.training.prepare import prepare
from cifar_fast.utils.errors import SettingError


def layers(model):
    return [list(layer.parameters()) for layer in model]


def watched(opt, fit):
    "What each step trains with, and the weights after it, on a net of three layers: linear, norm, linear."
    learn, _ = toy(opt=opt, steps=5)
    learn.splitter, steps = layers, []

    def look(at):
        if at.training:
            steps.append((np.array([h["lr"] for h in at.opt.hypers]), at.opt.hypers[-1].get("mom"),
                          [p.requires_grad for p in at.model.parameters()], state(at.model)))
    fit(learn, [Watch(100, after_batch=look)])
    assert all(p.requires_grad for p in learn.model.parameters())
    return steps


@pytest.mark.parametrize("opt", [
    partial(optimizers.sgd, weight_decay=1e-2, decay_norms=False), partial(optimizers.adamw), partial(optimizers.muon)])
@pytest.mark.parametrize("frozen, others", [(1, 2), (2, 5)])
def test_it_is_fastais(opt, frozen, others):
    theirs = watched(opt, lambda learn, cbs: learn.fine_tune(others, 0.1, freeze_epochs=frozen, cbs=cbs))
    ours = watched(opt, lambda learn, cbs: fine_tune(learn, frozen + others, 0.1, cbs, freeze_epochs=frozen))
    assert len(ours) == len(theirs) == 5 * (frozen + others)
    for one, two in zip(ours, theirs, strict=True):
        assert one[0] == pytest.approx(two[0], rel=1e-4) and one[1] == pytest.approx(two[1], rel=1e-5)
        assert one[2] == two[2]
        assert all(torch.allclose(v, two[3][k], rtol=1e-4, atol=1e-5) for k, v in one[3].items())
    assert [any(step[2][:2]) for step in ours] == [False] * 5 * frozen + [True] * 5 * others
    assert equal({k: v for k, v in ours[0][3].items() if k[0] == "0"},
                 {k: v for k, v in ours[5 * frozen - 1][3].items() if k[0] == "0"})


def test_without_frozen_epochs_only_rates_differ_by_depth():
    steps = watched(optimizers.sgd, lambda learn, cbs: fine_tune(learn, 2, 0.1, cbs, freeze_epochs=0, lr_mult=100))
    assert all(all(step[2]) for step in steps) and max(step[0][-1] for step in steps) == pytest.approx(0.05, rel=0.05)
    assert steps[3][0] / steps[3][0][0] == pytest.approx([1, 10, 100])


@pytest.mark.parametrize("opt", ["muon", "adamw"])
def test_frozen_layers_of_a_run_stay_and_batch_norm_trains(digits, tmp_path, opt):
    before, after = exported(tmp_path / "farm"), []
    run = trained(tiny("fit=fine_tune", f"init={tmp_path / 'farm'}", f"opt={opt}", "lr=0.02"),
                  Watch(56, after_epoch=lambda at: after.append(state(at.model))))
    first, second = after
    body = {k: v for k, v in before.items() if not k.startswith("head")}
    frozen, norms = ([k for k, v in body.items() if (v.ndim > 1) is convolution] for convolution in (True, False))
    assert len(frozen) == 7 and len(norms) == 30
    assert all(torch.equal(first[k], before[k]) and not torch.equal(second[k], before[k]) for k in frozen)
    assert not any(torch.equal(first[k], before[k]) for k in norms if "num_batches" not in k)
    assert not torch.equal(first["head.fc.weight"], prepare(run.run.recipe).learn.model.head.fc.weight)
    assert list(run.frame["epoch"]) == [1, 2] and len(run.state.hypers) == 16


def test_the_dry_run_shows_the_rates_of_the_head():
    recipe = tiny("fit=fine_tune", "init=x", "epochs=4", "lr=0.08")
    rates = [lr for lr, _ in preview(recipe, 10)]
    assert max(rates[:10]) == rates[9] == pytest.approx(0.08, rel=0.05) and rates[0] == pytest.approx(0.08 / 25)
    assert rates[10] == pytest.approx(0.04 / 5) and max(rates[10:]) == pytest.approx(0.04, rel=0.01)
    assert len(rates) == 40


def test_a_search_for_the_rate_starts_frozen(digits, tmp_path):
    exported(tmp_path / "farm")
    run, seen = prepare(tiny("fit=fine_tune", f"init={tmp_path / 'farm'}")), []
    run.memory_format = "contiguous"
    run.learn.add_cb(Watch(70, after_step=lambda at: seen.append(
        ([h["lr"] for h in at.opt.hypers], at.model.features.stem.conv.weight.requires_grad))))
    search(run, np.array([0.1, 0.2]), 0)
    assert seen == [([pytest.approx(lr / 10)] * 5 + [lr], False) for lr in (0.1, 0.2)]
    assert all(p.requires_grad for p in run.learn.model.parameters())


@pytest.mark.parametrize("arch, sizes", [("cifar_sprint", [1600, 13920, 27776, 73984, 4800, 650]),
                                         ("cifar_mirror", [232, 47856, 137592, 11960, 530]),
                                         ("test_resnet", None)])
def test_stem_stages_head(arch, sizes):
    model = create_model(arch, 10)
    groups = stem_stages_head(model)
    assert sizes is None or [sum(p.numel() for p in group) for group in groups] == sizes
    assert sorted(map(id, sum(groups, []))) == sorted(map(id, model.parameters())) and len(groups) > 3
    assert {id(p) for p in groups[-1]} == {id(p) for p in model.get_classifier().parameters()}


def test_a_model_without_groups_has_body_and_head():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
                                torch.nn.Linear(4, 2))
    assert [[p.shape[0] for p in group] for group in stem_stages_head(model)] == [[4, 4, 4, 4], [2, 2]]


@pytest.mark.parametrize("wrong", [dict(freeze_epochs=3), dict(freeze_epochs=-1), dict(lr_mult=0.5),
                                   dict(pct_start=1), dict(moms=(0.9, 0.8)), dict(moms=(0.9, None, 0.9)),
                                   dict(moms=(0.9, 1.0, 0.9))])
def test_arguments_out_of_range(wrong):
    learn, _ = toy()
    learn.splitter = layers
    with pytest.raises(SettingError, match=next(iter(wrong))):
        fine_tune(learn, 3, 0.1, [], **wrong)


def test_a_learner_with_one_group_is_refused():
    with pytest.raises(SettingError, match="splitter"):
        fine_tune(toy()[0], 3, 0.1, [])


def test_a_stem_for_another_size_trains_with_the_head(digits, tmp_path):
    exported(tmp_path / "farm", size=64)
    run = prepare(tiny(f"init={tmp_path / 'farm'}", "fit=fine_tune", "size=32"))
    stem = run.learn.model.features.stem.conv.weight
    groups = run.learn.splitter(run.learn.model)
    assert any(p is stem for p in groups[-1]) and not any(p is stem for group in groups[:-1] for p in group)
    assert sum(map(len, groups)) == len(list(run.learn.model.parameters()))
    assert "epoch 1 trains what is new and batch norm alone" in started(run)
