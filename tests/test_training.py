"""Training on digits, in short: it repeats bit for bit, keeps what it should keep, and stops when it should."""

import random
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.callback.core import CancelTrainException
from safetensors.torch import load_file
from torch import nn
from toys import Watch, equal, state, toy

from cifar_fast.callbacks.ema import EMA, ema
from cifar_fast.callbacks.history import History
from cifar_fast.callbacks.precision import choose_precision
from cifar_fast.callbacks.stopping import KeepBest, Patience, Target
from cifar_fast.card import finished
from cifar_fast.constraints import Budget
from cifar_fast.device import choose_device
from cifar_fast.lrfind import find
from cifar_fast.recipe import RecipeError, load_recipe, override
from cifar_fast.seeds import derive, rng_restored, seed_everything
from cifar_fast.train import BudgetError, fit, prepare

TINY = ("data=digits", "epochs=2", "bs=64", "valid=900", "lr=0.05", "device=cpu")  # 8 batches an epoch
AVERAGED = ("ema=ema", "ema.decay=0.99", "ema.warmup=true")


def tiny(*changes):
    average = () if any(c.startswith("ema") for c in changes) else AVERAGED
    return override(load_recipe("sprint"), [*TINY, *average, *changes])


def trained(recipe, *more, folder=None):
    "A fitted run, its callbacks by type, and its weights; `more` callbacks watch it."
    run = prepare(recipe)
    run.learn.add_cbs(more)
    cbs = {type(cb): cb for cb in fit(run, folder=folder)}
    return SimpleNamespace(run=run, cbs=cbs, weights=state(run.learn.model), frame=cbs[History].frame())


MIXED = ("mix=mixing", "mix.mixup=0.3", "mix.cutmix=0.3", "mix.ricap=0.2")


@pytest.fixture(scope="module")
def base(digits):
    return trained(tiny(*MIXED))


# ---------------------------------------------------------------- the same again


def test_the_same_seed_gives_the_same_weights_bit_for_bit(base):
    torch.manual_seed(99)  # what went before does not matter
    again = trained(tiny(*MIXED))
    assert equal(base.weights, again.weights)
    assert equal(state(base.cbs[EMA].average.module), state(again.cbs[EMA].average.module))
    shown = [c for c in base.frame if c not in ("seconds", "images_per_second")]
    assert base.frame[shown].equals(again.frame[shown])


def test_workers_do_not_change_the_weights(base):
    assert equal(base.weights, trained(tiny(*MIXED, "workers=2")).weights)


def test_another_seed_gives_other_weights(base):
    other = trained(tiny(*MIXED, "seed=43", "epochs=1"))
    assert all(not torch.equal(v, base.weights[k]) for k, v in other.weights.items() if v.ndim > 1)


def test_training_learns(base):
    first, last = base.frame.iloc[0], base.frame.iloc[-1]
    assert last["train_loss"] < first["train_loss"] and last["valid_accuracy"] > 0.13
    assert base.frame["epoch"].tolist() == [1, 2] and len(base.cbs[History].steps) == 16
    assert base.run.learn.loss_func.reduction == "mean"


def test_seeds_of_near_places_are_unrelated():
    places = [(s, e, b) for s in range(3) for e in range(10) for b in range(30)]
    found = {derive(*p) for p in places}
    assert len(found) == len(places) and derive(1, 2, 3) == derive(1, 2, 3)
    bits = np.array([[int(c) for c in f"{derive(1, 0, b):032b}"] for b in range(400)])
    assert abs(bits.mean() - 0.5) < 4.5 * 0.5 / bits.size**0.5


def random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def states_equal(one, other):
    return (one[0] == other[0] and all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))
            and torch.equal(one[2], other[2]))


def test_random_states_are_restored_even_after_an_error():
    seed_everything(5)
    before = random_states()
    with pytest.raises(RuntimeError, match="inside"), rng_restored():
        random.random(), np.random.rand(), torch.rand(3)
        assert not states_equal(before, random_states())
        raise RuntimeError("inside")
    assert states_equal(before, random_states())


# ---------------------------------------------------------------- lr_find leaves no trace


def optimizer_state(learn):
    return deepcopy(learn.opt.opt.state_dict())


def test_training_after_lr_find_equals_training_without_it(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = prepare(tiny(*MIXED))
    learn, train = run.learn, run.learn.dls.train
    seed_everything(77)
    before, weights, callbacks = random_states(), state(learn.model), set(learn.cbs)
    found = find(run, num_it=40)
    assert len(found["lr"]) == len(found["loss"]) > 20 and len(set(found["loss"])) > 20  # it did train
    assert set(found["suggestions"]) == {"valley", "slide", "minimum", "steep"}
    assert states_equal(before, random_states())
    assert equal(weights, learn.model.state_dict()) and all(p.grad is None for p in learn.model.parameters())
    assert (learn.opt, train.next_epoch, set(learn.cbs)) == (None, 0, callbacks)
    assert list(tmp_path.iterdir()) == []
    fit(run)
    assert equal(base.weights, learn.model.state_dict())

    # And in the middle of things: the optimizer with its momentum stays, and the next epoch is the one it was.
    opt, weights, epoch = learn.opt, state(learn.model), train.next_epoch
    before = optimizer_state(learn)
    find(run, num_it=40)
    after = optimizer_state(learn)
    assert learn.opt is opt and train.next_epoch == epoch == 2 and equal(weights, learn.model.state_dict())
    assert before["param_groups"] == after["param_groups"]
    for key, buffers in before["state"].items():
        assert torch.equal(buffers["momentum_buffer"], after["state"][key]["momentum_buffer"])


def test_lr_find_that_breaks_leaves_no_trace_either(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = prepare(tiny(*MIXED, "precision=bf16"))
    weights, before = state(run.learn.model), random_states()

    def break_off(learn):
        assert torch.is_autocast_enabled("cpu")
        if learn.train_iter == 3:
            raise KeyboardInterrupt

    run.learn.add_cb(watch := Watch(5, after_pred=break_off))
    with pytest.raises(KeyboardInterrupt):
        find(run, num_it=40)
    run.learn.remove_cb(watch)
    assert equal(weights, run.learn.model.state_dict()) and states_equal(before, random_states())
    assert run.learn.opt is None and not torch.is_autocast_enabled("cpu")
    assert not [cb for cb in run.learn.cbs if type(cb).__name__ in ("LRFinder", "Autocast", "PlainBatch", "Mixing")]


@pytest.mark.parametrize("steps", [5, 20, 29])
def test_too_few_steps_for_lr_find(steps):
    with pytest.raises(ValueError, match=f"num_it={steps}"):
        find(SimpleNamespace(learn=None), num_it=steps)


# ---------------------------------------------------------------- EMA, best, stops, clipping


def test_the_average_follows_its_definition(digits):
    shadow, steps = {}, []

    def follow(learn):
        steps.append(1)
        for k, v in learn.model.state_dict().items():
            # It starts with the weights after the first step; counters are taken over.
            mean = len(steps) > 1 and v.is_floating_point()
            shadow[k] = 0.5 * shadow[k] + 0.5 * v if mean else v.clone()

    done = trained(tiny("epochs=1", "ema=ema", "ema.decay=0.5"), Watch(8, after_step=follow))
    average = state(done.cbs[EMA].average.module)
    assert len(steps) == 8 == done.cbs[EMA].updates
    for k, v in average.items():
        assert torch.allclose(v, shadow[k], atol=1e-6), k
    assert not equal(average, done.weights)


def test_the_average_is_measured_and_exported(base):
    run, average = base.run, base.cbs[EMA].average.module
    assert not equal(base.weights, average.state_dict())
    last = base.frame.iloc[-1]
    for net, column in ((run.learn.model, "valid_accuracy"), (average, "valid_ema_accuracy")):
        net.eval()
        with torch.no_grad():
            right = [(net(x.as_subclass(torch.Tensor)).argmax(1) == y).float() for x, y in run.learn.dls.valid]
        assert float(torch.cat(right).mean()) == pytest.approx(last[column])
    card, said = finished(run.recipe, run, list(base.cbs.values()), 1.0)
    assert equal(state(average), run.learn.model.state_dict())  # swapped in
    assert 0 <= card["held_out"]["accuracy_without_ema"] <= 1 and sum(card["mixed"].values()) == 16


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match=f"ema.decay={decay}"):
        ema(decay=decay)


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "with EMA"])
def test_keep_best_restores_the_best_epoch(digits, tmp_path, averaged):
    snaps, averages = [], []

    def spoil(learn):
        if learn.epoch == learn.n_epoch - 1:
            for module in [learn.model, *([learn.ema.average.module] if averaged else [])]:
                for p in module.parameters():
                    p.data.zero_()

    def snap(learn):
        snaps.append(state(learn.model))
        averages.append(state(learn.ema.average.module) if averaged else snaps[-1])

    done = trained(tiny("epochs=3", "select=best", *([] if averaged else ["ema=none"])),
                   Watch(5, after_train=spoil), Watch(58, after_epoch=snap), folder=tmp_path)
    best = int(done.frame["valid_ema_accuracy" if averaged else "valid_accuracy"].idxmax())  # of what is exported
    assert len(snaps) == 3 and best < 2  # the last epoch was spoilt
    assert done.cbs[KeepBest].epoch_of_best == best
    assert equal(done.weights, snaps[best]) and not equal(done.weights, snaps[2])
    assert equal(load_file(tmp_path / "best.safetensors"), averages[best])
    if averaged:
        assert equal(state(done.cbs[EMA].average.module), averages[best])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["augmented.png", "best.safetensors", "history.csv"]


@pytest.mark.parametrize("patience, epochs", [(1, 3), (2, 6), (3, 8)])
def test_patience_counts_epochs_without_a_new_best(patience, epochs):
    values = [0.1, 0.3, 0.3, 0.4, 0.2, 0.4, 0.6, 0.1]
    learn, _ = toy(values)
    ran = []
    learn.fit(8, cbs=[Patience(patience), Watch(1, before_epoch=lambda at: ran.append(at.epoch))])
    assert len(ran) == epochs


@pytest.mark.parametrize("target, epochs", [(0.3, 2), (0.31, 3), (0.9, 4)])
def test_target_stops_once_it_is_reached(target, epochs, capsys):
    learn, _ = toy([0.1, 0.3, 0.5, 0.2])
    ran = []
    learn.fit(4, cbs=[Target(target), Watch(1, before_epoch=lambda at: ran.append(at.epoch))])
    assert len(ran) == epochs
    assert ("has reached the target" in capsys.readouterr().out) is (target < 0.9)


def test_a_run_stopped_by_its_target_keeps_its_record(digits, tmp_path):
    done = trained(tiny("epochs=5", "target=0.01", "patience=3", "select=best", "fit=flat", "sched=plateau"),
                   folder=tmp_path)
    assert len(done.frame) == 1 and done.cbs[KeepBest].epoch_of_best == 0
    assert (tmp_path / "history.csv").read_text().count("\n") == 2
    assert (tmp_path / "best.safetensors").exists()


def norm(learn):
    return float(torch.cat([p.grad.flatten() for p in learn.model.parameters()]).norm())


def test_clipping_limits_the_gradient(digits):
    before, after = [], []
    trained(tiny("epochs=1", "clip=0.5"),
            Watch(5, before_step=lambda learn: before.append(norm(learn))),
            Watch(20, before_step=lambda learn: after.append(norm(learn))))
    assert len(before) == 8 and max(before) > 0.6
    assert after == pytest.approx([min(n, 0.5) for n in before], rel=1e-3)


# ---------------------------------------------------------------- precision and devices


@pytest.mark.parametrize("kind, bf16, chosen", [
    ("cuda", True, "bf16"), ("cuda", False, "fp16"), ("mps", True, "fp32"), ("cpu", True, "bf16"),
    ("cpu", False, "fp32"),
])
def test_automatic_precision(monkeypatch, kind, bf16, chosen):
    # No such device is needed for the choice: what is asked about it is answered here.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr("cifar_fast.callbacks.precision.cpu_has_bf16", lambda: bf16)
    assert choose_precision("auto", torch.device(kind)) == chosen
    for asked in ("fp32", "bf16"):
        assert choose_precision(asked, torch.device(kind)) == asked


def test_fp16_is_refused_on_a_cpu(digits):
    assert choose_precision("fp16", torch.device("cuda")) == "fp16"
    with pytest.raises(ValueError, match="fp16 does not train on a CPU.*bf16 or fp32"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(RecipeError, match="fp16 does not train on a CPU"):
        prepare(tiny("precision=fp16"))


def test_bf16_on_a_cpu(digits):
    seen, inside, losses = set(), set(), []

    def look(learn):
        seen.add((learn.pred.dtype, torch.is_autocast_enabled("cpu"), learn.training))

    def few(learn):  # three batches are enough: depthwise convolutions in bf16 are slow on most CPUs
        losses.append(float(learn.loss))
        if learn.training and learn.train_iter == 3:
            raise CancelTrainException

    run = prepare(tiny("epochs=1", "precision=bf16", "valid=10"))
    conv = next(m for m in run.learn.model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, args, output: inside.add(output.dtype))
    before = state(run.learn.model)
    run.learn.add_cbs([Watch(20, after_pred=look), Watch(99, after_batch=few)])
    fit(run)
    assert torch.bfloat16 in inside  # the net runs in bf16, the loss and the weights are fp32
    assert seen == {(torch.float32, True, True), (torch.float32, True, False)}
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert not equal(before, state(run.learn.model)) and not torch.is_autocast_enabled("cpu")
    assert {p.dtype for p in run.learn.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("event", ["after_pred", "after_batch"])
def test_an_interrupted_run_leaves_nothing_behind(digits, error, event):
    run = prepare(tiny("precision=bf16", "clip=1", "patience=1", *MIXED))
    callbacks, logger = list(run.learn.cbs), run.learn.logger

    def break_off(learn):
        assert event != "after_pred" or torch.is_autocast_enabled("cpu")
        if learn.train_iter == 2:
            raise error("in the middle of a batch")

    watch = Watch(15, **{event: break_off})
    run.learn.add_cb(watch)
    with pytest.raises(error):
        fit(run)
    run.learn.remove_cb(watch)
    assert not torch.is_autocast_enabled("cpu")
    assert {type(cb) for cb in run.learn.cbs} == {type(cb) for cb in callbacks}
    assert run.learn.logger is logger and run.learn.loss_func.reduction == "mean"


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps", "meta", "xpu"):
        with pytest.raises(ValueError, match=f"device={name}: this machine has no such device.*device=auto"):
            choose_device(name)
    for name in ("gpu", "", "cuda:x", "cpu,cuda"):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda, cuda:1 … or mps"):
            choose_device(name)


def test_devices_that_are_here(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().type == "cuda" and choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device=cuda:2"):
        choose_device("cuda:2")


# ---------------------------------------------------------------- the budget


def test_a_net_that_breaks_the_budget_is_refused(digits):
    with pytest.raises(BudgetError, match=r"cifar_strided breaks the budget of recipe 'sprint-digits' "
                                          r"\(receptive_field: 33, required 45\).*waive=\{'receptive_field': 'why'\}"):
        prepare(tiny("arch=cifar_strided"))
    with pytest.raises(BudgetError, match=r"parameters: \d+, required 1000; dilation: 1, required 5"):
        prepare(replace(tiny(), budget=Budget(max_params=1000, dilated=5)))
    assert not prepare(tiny()).audit.failures()


def test_a_rule_is_waived_by_name_and_with_a_reason(digits):
    strided = tiny("arch=cifar_strided")
    assert [v.rule for v in prepare(replace(strided, waive={"receptive_field": "as published"})).audit.failures()] == [
        "receptive_field"]  # it is waived, not hidden
    with pytest.raises(BudgetError, match="receptive_field"):
        prepare(replace(strided, waive={"dilation": "another rule"}))
    with pytest.raises(ValueError, match="no rule is called receptive; the rules are parameters, receptive_field"):
        prepare(replace(strided, waive={"receptive": "a typo"}))
    with pytest.raises(ValueError, match="needs a reason"):
        prepare(replace(strided, waive={"receptive_field": ""}))


def test_an_architecture_that_there_is_not(digits):
    with pytest.raises(ValueError, match="no architecture is called 'cifar_nope'.*; there are cifar_final"):
        prepare(tiny("arch=cifar_nope"))
