"""Schedules without training: the committed recipes give the published learning rates, one by one.

`preview` runs the recipe's own optimizer, fit and schedule on a net of one weight.
"""

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from cifar_fast.recipe import list_recipes, load_recipe, override, recipes_dir
from cifar_fast.runs.dryrun import preview
from cifar_fast.training import schedules as schedule
from cifar_fast.training.callbacks.scheduler import Scheduler
from cifar_fast.training.state import TrainState

PUBLISHED = recipes_dir() / "published"


def column(recipe, name):
    "A column of a published record, as text: its rates are rounded to six digits."
    with open(PUBLISHED / f"{recipe}.csv", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def six(rates):
    return [f"{rate:.6f}" for rate in rates]


def changed(name, *changes):
    return override(load_recipe(name), list(changes))


def after_epochs(recipe, steps, **kw):
    "The optimizer's rate after each epoch: what the next epoch starts with."
    rates = []
    preview(recipe, steps, each_epoch=lambda learn: rates.append(learn.opt.hypers[-1]["lr"]), **kw)
    return rates


def every_step(recipe, steps):
    "(rate, momentum) of each step; the recipe's schedule and optimizer alone, without the Learner around them."
    cb, weight = Scheduler(recipe.sched(), TrainState()), torch.nn.Parameter(torch.zeros(1))
    opt = recipe.opt([weight], lr=recipe.lr)
    cb.learn = SimpleNamespace(opt=opt, n_epoch=recipe.epochs, dls=SimpleNamespace(train=range(steps)), training=True)
    cb.before_fit()
    found = []
    for _ in range(recipe.epochs):
        for _ in range(steps):
            group = opt.opt.param_groups[0]
            found.append((group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]))
            cb.after_batch()
        cb.after_epoch()
    return found, opt.hypers[-1]["lr"]


# ---------------------------------------------------------------- the published records


def test_netv2_gives_42_of_42_published_rates():
    # Its lr column is the rate after the scheduler's step at the end of the epoch: the first halving stands in the
    # row of epoch 28, whose accuracy is the third in a row without a new best.
    accuracies, published = [float(a) / 100 for a in column("netv2", "valid_acc")], column("netv2", "lr")
    found = six(after_epochs(load_recipe("netv2"), 1, accuracies=accuracies))
    assert len(published) == 42 and found == published
    assert [i + 1 for i in range(1, 42) if found[i] != found[i - 1]] == [28, 35]
    # The rates that the epochs were trained with are those, one epoch later.
    used = six(rate for rate, _ in preview(load_recipe("netv2"), 1, accuracies))
    assert used == ["0.001000", *published[:-1]] and used != published


def test_net_gives_50_of_50_published_rates():
    # Its lr column is the rate after the last of the 781 batches of an epoch, with the scheduler stepped each batch.
    # A cycle is 8 batches and 781 = 5 (mod 8), so epochs of 5 batches end at the same points of the cycle.
    published = column("net", "lr")
    assert len(published) == 50 and load_recipe("net").epochs == 50
    assert six(after_epochs(load_recipe("net"), 5)) == published
    assert six(after_epochs(load_recipe("net"), 1)) != published  # what stepping once an epoch would give


def test_net_gives_them_with_its_own_781_batches_too():
    steps, last = every_step(load_recipe("net"), 781)
    assert len(steps) == 50 * 781
    starts = [steps[e * 781][0] for e in range(1, 50)] + [last]  # an epoch starts with the rate that the last one left
    assert six(starts) == column("net", "lr")
    # "Momentum" is Adam's beta1: lowest where the rate is highest.
    assert [round(m, 9) for _, m in steps[:9]] == [0.9, 0.875, 0.85, 0.825, 0.8, 0.825, 0.85, 0.875, 0.9]
    assert six(rate for rate, _ in steps[:5]) == ["0.000100", "0.002575", "0.005050", "0.007525", "0.010000"]


def test_mobile_gives_9_of_9_published_rates():
    # Its lr column is the rate that the epoch is trained with, epochs counted from 0.
    used = [rate for rate, _ in preview(load_recipe("mobile"), 1)]
    rows = [int(e) for e in column("mobile", "epoch")]
    assert len(used) == 80 and len(rows) == 9
    assert six(used[e] for e in rows) == column("mobile", "lr")
    assert six(used[e + 1] for e in rows[1:-1]) != column("mobile", "lr")[1:-1]  # the other convention


def one_cycle_of_torch(total, **kw):
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler, found = OneCycleLR(opt, max_lr=0.05, total_steps=total, **kw), []
    for i in range(total):
        found.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
        opt.step()
        if i < total - 1:
            scheduler.step()
    return found


def test_strided_equals_torchs_one_cycle_step_for_step():
    expected = one_cycle_of_torch(30 * 391)
    found, _ = every_step(load_recipe("strided"), 391)
    assert len(found) == 30 * 391 and found == expected
    assert max(rate for rate, _ in found) == 0.05 and {found[0][1], max(m for _, m in found)} == {0.95}
    assert min(m for _, m in found) == pytest.approx(0.85)


def test_strided_equals_it_inside_a_learner_too():
    # The same through fastai's loop, which sets hyperparameters of its own: shorter epochs, for it costs 1 ms a step.
    found = preview(load_recipe("strided"), 13)
    expected = one_cycle_of_torch(30 * 13)
    assert found == [(pytest.approx(rate, rel=1e-12), pytest.approx(m, rel=1e-12)) for rate, m in expected]


@pytest.mark.slow
@pytest.mark.parametrize("name, steps", [("strided", 391), ("net", 781)])
def test_whole_runs_inside_a_learner(name, steps):
    found = preview(load_recipe(name), steps)
    expected, _ = every_step(load_recipe(name), steps)
    assert found == [(pytest.approx(rate, rel=1e-12), pytest.approx(m, rel=1e-12)) for rate, m in expected]


# ---------------------------------------------------------------- the others, and from the command line


@pytest.mark.parametrize("name", ["net", "mobile"])
def test_step_as_published_on_the_command_line(name):
    # --scheduler step --lr 0.01 --step_size 8 --gamma 0.1 --epochs 10, in any order
    recipe = changed(name, "sched.gamma=0.1", "sched=step", "lr=0.01", "sched.step_size=8", "epochs=10")
    used = [rate for rate, _ in preview(recipe, 3)]
    assert used == pytest.approx([0.01] * 24 + [0.001] * 6)


def test_step_of_another_size():
    used = [rate for rate, _ in preview(changed("mobile", "sched=step", "sched.step_size=2", "sched.gamma=0.5",
                                                "epochs=5", "lr=0.8"), 1)]
    assert used == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])


def test_cosine_ends_one_step_above_its_least_rate():
    used = [rate for rate, _ in preview(changed("mobile", "epochs=4", "sched.eta_min=0.002", "lr=0.01"), 2)]
    by_epoch = [0.002 + 0.004 * (1 + math.cos(math.pi * e / 4)) for e in range(4)]
    assert used == pytest.approx([rate for rate in by_epoch for _ in range(2)])


def test_warmup_cosine_first_peak_and_last():
    recipe = changed("optimized200k", "epochs=12")
    used = [rate for rate, _ in preview(recipe, 10)]
    assert recipe.lr == 0.05 and len(used) == 120
    assert used[0] == pytest.approx(0.005)  # a tenth of the peak
    assert used[50] == max(used) == pytest.approx(0.05)  # after five epochs
    up = [b - a for a, b in zip(used[:50], used[1:51], strict=True)]
    assert up == pytest.approx([0.045 / 50] * 50)
    down = [0.025 * (1 + math.cos(math.pi * i / 70)) for i in range(70)]
    assert used[50:] == pytest.approx(down)
    assert 0 < used[-1] < 5e-5


def test_warmup_of_half_an_epoch_and_of_more_than_the_run():
    used = [rate for rate, _ in preview(changed("optimized200k", "epochs=2", "sched.warmup=0.5", "lr=1"), 10)]
    assert used.index(max(used)) == 5 and max(used) == pytest.approx(1)
    used = [rate for rate, _ in preview(changed("optimized200k", "epochs=2", "sched.warmup=5", "lr=1"), 10)]
    assert used == sorted(used) and len(used) == 20


def test_no_warmup_is_none():
    used = [rate for rate, _ in preview(changed("optimized200k", "epochs=2", "sched.warmup=0", "lr=1"), 10)]
    assert used == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 20)) for i in range(20)])


@pytest.mark.parametrize("steps, pct_start", [(4, 0.25), (5, 0.2), (2, 0.5)])
def test_torchs_one_cycle_that_rises_for_one_step_of_a_short_run(steps, pct_start):
    recipe = changed("optimized200k", f"epochs={steps}", "sched=one_cycle_torch", f"sched.pct_start={pct_start}")
    used = [rate for rate, _ in preview(recipe, 1)]
    assert len(used) == steps and used[0] == pytest.approx(0.05 / 25) and used[-1] == pytest.approx(0.05 / 25e4)


def test_fastais_one_cycle_start_peak_and_end():
    recipe = changed("sprint", "epochs=4", "lr=0.4", "fit.pct_start=0.25", "fit.div=10.0", "fit.div_final=1e4",
                     "fit.moms=(0.9, 0.85, 0.9)")
    steps = preview(recipe, 25)
    rates, moms = [rate for rate, _ in steps], [m for _, m in steps]
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.04) and moms[0] == pytest.approx(0.9)
    assert rates[25] == max(rates) == pytest.approx(0.4) and moms[25] == min(moms) == pytest.approx(0.85)
    # The last step is one before the end of the cosine, at 1 % of its way.
    assert rates[-1] == pytest.approx(0.4e-4 + (0.4 - 0.4e-4) * (1 + math.cos(math.pi * 74 / 75)) / 2, rel=1e-4)
    assert moms[-1] == pytest.approx(0.9, abs=1e-4)


def test_flat_cos_holds_then_falls():
    recipe = changed("sprint", "epochs=4", "fit=flat_cos", "fit.pct_start=0.5", "lr=0.4")
    used = [rate for rate, _ in preview(recipe, 10)]
    assert used[:21] == pytest.approx([0.4] * 21) and used[21:] == sorted(used[21:], reverse=True)
    assert used[-1] < 0.01


def test_flat_holds():
    assert preview(changed("sprint", "epochs=2", "fit=constant", "lr=0.4", "opt.momentum=0.7"), 5) == [(0.4, 0.7)] * 10


def test_plateau_has_a_lower_bound():
    recipe = changed("netv2", "sched.min_lr=0.0002", "sched.factor=0.1")
    assert after_epochs(recipe, 1, accuracies=[0.5] * 10) == pytest.approx([1e-3] * 3 + [2e-4] * 7)


def test_plateau_waits_for_more_than_its_patience():
    # torch's patience of 2 lets two epochs without a new best pass and acts after the third (fastai's would be 3).
    rates = after_epochs(changed("netv2", "sched.patience=2"), 1, accuracies=[0.5, 0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4])
    assert rates == pytest.approx([1e-3] * 6 + [5e-4] * 2)


def test_without_accuracies_a_plateau_sees_them_rise():
    # What --dry-run draws: a schedule that watches validation accuracy holds its rate while that rises.
    assert {rate for rate, _ in preview(load_recipe("netv2"), 1)} == {1e-3}


def test_preview_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    preview(changed("sprint", "epochs=1"), 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_has_a_schedule_that_runs(name):
    steps = preview(changed(name, "epochs=6"), 4)
    assert len(steps) == 24 and all(rate > 0 and 0 < m < 1 for rate, m in steps)


@pytest.mark.parametrize("name", schedule.__all__)
@pytest.mark.parametrize("opt", ["adam", "adamw", "sgd"])
def test_every_schedule_runs_with_every_optimizer(name, opt):
    recipe = changed("net", f"sched={name}", f"opt={opt}", "epochs=7", "opt.decay_norms=false")
    steps = preview(recipe, 4)
    assert len(steps) == 28 and all(rate > 0 for rate, _ in steps)
    if name != "plateau":  # which holds the rate as long as accuracy rises
        late = preview(changed("net", f"sched={name}", f"opt={opt}", "epochs=9"), 4)
        assert len({round(rate, 12) for rate, _ in late}) > 1
