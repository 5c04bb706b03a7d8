"""Training on digits, in short: it averages, keeps what it should keep, stops when it should, and within the budget."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from strangers import CARD
from tiny import tiny, trained
from toys import Watch, equal, toy
from toys import state as weights_of

from cifar_fast.audit import AuditError, Budget
from cifar_fast.export.card_parts import BestEpoch, Metrics, Seconds
from cifar_fast.export.measure import make_card
from cifar_fast.export.summary import result_text
from cifar_fast.models import ModelError
from cifar_fast.recipe import override
from cifar_fast.training import fit as fit_module
from cifar_fast.training.callbacks.ema import ema
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.callbacks.stopping import Patience, Target
from cifar_fast.training.prepare import BudgetError, prepare
from cifar_fast.training.state import TrainState


def test_the_average_follows_its_definition(digits, monkeypatch):
    monkeypatch.setattr(fit_module, "YOUNG", 0)  # batch norm's statistics are averaged too, and not computed anew
    shadow, steps = {}, []

    def follow(learn):
        steps.append(1)
        for k, v in learn.model.state_dict().items():
            # It starts with the weights after the first step; counters are taken over.
            mean = len(steps) > 1 and v.is_floating_point()
            shadow[k] = 0.5 * shadow[k] + 0.5 * v if mean else v.clone()

    done = trained(tiny("epochs=1", "ema=ema", "ema.decay=0.5"), Watch(8, after_step=follow))
    average = weights_of(done.ema)
    assert len(steps) == 8 == done.state.step
    for k, v in average.items():
        assert torch.allclose(v, shadow[k], atol=1e-6), k
    assert not equal(average, done.weights)


def test_the_average_is_measured_and_exported(base):
    run, average = base.run, base.ema
    assert not equal(base.weights, average.state_dict())
    last = base.frame.iloc[-1]
    for net, column in ((run.learn.model, "valid_accuracy"), (average, "valid_ema_accuracy")):
        net.eval()
        with torch.no_grad():
            right = [(net(x.as_subclass(torch.Tensor)).argmax(1) == y).float() for x, y in run.learn.dls.valid]
        assert float(torch.cat(right).mean()) == pytest.approx(last[column])
    card, said = make_card(run.recipe, run, base.fitted)
    assert equal(weights_of(average), run.learn.model.state_dict())  # swapped in
    assert 0 <= card.metrics.accuracy_without_ema <= 1 and sum(card.mixed.values()) == 16


def test_no_tensor_stays_of_a_step(base):
    "One a step, between the tensors that come and go, made a long run's memory grow."
    recorder = base.run.learn.recorder
    assert len(recorder.losses) == 16 and {type(x) for x in recorder.losses} == {float}
    assert recorder.losses[-1] == float(recorder.smooth_loss.value)


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match=f"ema.decay={decay}"):
        ema(decay=decay)


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "with EMA"])
def test_keep_best_restores_the_best_epoch(digits, tmp_path, averaged):
    snaps, averages = [], []

    def spoil(learn):
        if learn.epoch == learn.n_epoch - 1:
            for module in [learn.model, *([learn.ema.module] if averaged else [])]:
                for p in module.parameters():
                    p.data.zero_()

    def snap(learn):
        snaps.append(weights_of(learn.model))
        averages.append(weights_of(learn.ema.module) if averaged else snaps[-1])

    done = trained(tiny("epochs=3", "keep=best", *([] if averaged else ["ema=none"])),
                   Watch(5, after_train=spoil), Watch(58, after_epoch=snap), folder=tmp_path)
    best = int(done.frame["valid_ema_accuracy" if averaged else "valid_accuracy"].idxmax())  # of what is exported
    assert len(snaps) == 3 and best < 2  # the last epoch was spoilt
    assert done.state.best["epoch"] == best + 1
    assert equal(done.weights, snaps[best]) and not equal(done.weights, snaps[2])
    assert equal(load_file(tmp_path / "best.safetensors"), averages[best])
    if averaged:
        assert equal(weights_of(done.ema), averages[best])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "history.csv"]


@pytest.mark.parametrize("patience, epochs", [(1, 3), (2, 6), (3, 8)])
def test_patience_counts_epochs_without_a_new_best(patience, epochs):
    values = [0.1, 0.3, 0.3, 0.4, 0.2, 0.4, 0.6, 0.1]
    learn, _ = toy(values)
    ran = []
    state, count = TrainState(), Watch(1, before_epoch=lambda at: ran.append(at.epoch))
    learn.fit(8, cbs=[History(state), Patience(state, patience), count])
    assert len(ran) == epochs


@pytest.mark.parametrize("target, epochs", [(0.3, 2), (0.31, 3), (0.9, 4)])
def test_target_stops_once_it_is_reached(target, epochs, capsys):
    learn, _ = toy([0.1, 0.3, 0.5, 0.2])
    ran = []
    state, count = TrainState(), Watch(1, before_epoch=lambda at: ran.append(at.epoch))
    learn.fit(4, cbs=[History(state), Target(state, target), count])
    assert len(ran) == epochs
    assert ("has reached the target" in capsys.readouterr().out) is (target < 0.9)


def test_a_run_stopped_by_its_target_keeps_its_record(digits, tmp_path):
    done = trained(tiny("epochs=5", "target=0.01", "patience=3", "keep=best", "fit=constant", "sched=plateau"),
                   folder=tmp_path)
    assert len(done.frame) == 1 and done.state.best["epoch"] == 1
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


# ---------------------------------------------------------------- the budget


def test_a_net_that_breaks_the_budget_is_refused(digits):
    with pytest.raises(BudgetError, match=r"cifar_strided breaks the budget of sprint-digits "
                                          r"\(receptive_field: 33, required 45\).*budget.min_receptive_field=33 allows "
                                          r"it.*waive=\{'receptive_field': 'why'\}"):
        prepare(tiny("arch=cifar_strided"))
    with pytest.raises(BudgetError, match=r"parameters: 122,730, required 1,000; dilation: 1, required 5"):
        prepare(replace(tiny(), budget=Budget(max_params=1000, dilated=5)))
    assert not prepare(tiny()).audit.failures()


@pytest.mark.parametrize("budget", [Budget(max_params=1000, dilated=5), Budget(max_flash_kb=10, max_ram_kb=1.5),
                                    Budget(max_macs=1e6, min_receptive_field=99, global_average_pool=False)])
def test_the_changes_that_a_refusal_recommends_are_accepted(digits, budget):
    recipe = replace(tiny(), budget=budget)
    with pytest.raises(BudgetError) as refused:
        prepare(recipe)
    changes = re.findall(r"budget\.\w+=\w+", str(refused.value))
    assert len(changes) >= 2 and not prepare(override(recipe, changes)).audit.failures()


def test_a_rule_is_waived_by_name_and_with_a_reason(digits):
    strided = tiny("arch=cifar_strided")
    assert [v.rule for v in prepare(replace(strided, waive={"receptive_field": "as published"})).audit.failures()] == [
        "receptive_field"]  # it is waived, not hidden
    with pytest.raises(BudgetError, match="receptive_field"):
        prepare(replace(strided, waive={"dilation": "another rule"}))
    with pytest.raises(AuditError, match="receptive; the rules are parameters, receptive_field"):
        prepare(replace(strided, waive={"receptive": "a typo"}))
    with pytest.raises(AuditError, match="no reason for receptive_field"):
        prepare(replace(strided, waive={"receptive_field": ""}))


def test_an_architecture_that_there_is_not(digits):
    with pytest.raises(ModelError, match="'cifar_nope'.* there are cifar_final.*--recipe"):
        prepare(tiny("arch=cifar_nope"))


@pytest.mark.parametrize("select, said", [
    ("best", "test accuracy of the best epoch 80.00%"), ("last", "test accuracy 80.00%")])
def test_what_was_selected_is_said(select, said):
    card = replace(CARD, recipe={"keep": select, "validate_on": "test"}, seconds=Seconds(training=1, epoch=1),
                   last_epoch={"valid_accuracy": 0.8}, best_epoch=BestEpoch(accuracy=0.9, epoch=3), split="test",
                   metrics=Metrics(n=10, accuracy=0.8))
    last, measured = result_text(card).splitlines()
    assert last == "last epoch, test accuracy 80.00%, best epoch (3), selected on test 90.00%"
    assert measured.startswith(said) and "n = 10, 95 % interval 49.0 to 94.3 %" in measured
