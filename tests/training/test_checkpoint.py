"""The file of a stopped run: no code, named where it is broken, and each piece of the state that it holds."""

import random
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from breaking import resume
from kills import NAME, RUN
from strangers import Payload

from cifar_fast.cli.main import main
from cifar_fast.training import schedules as schedule
from cifar_fast.training.callbacks import checkpoint
from cifar_fast.training.callbacks.checkpoint import CheckpointError, load
from cifar_fast.training.callbacks.ema import EMAAccuracy
from cifar_fast.training.callbacks.scheduler import Scheduler
from cifar_fast.training.optimizers import muon, sgd
from cifar_fast.training.run_state import epoch_state, plain, restore_optimizer, rng_state, set_rng_state
from cifar_fast.training.state import TrainState


def test_a_checkpoint_runs_no_code_and_a_broken_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_FAST_TEST_PAYLOAD", str(tmp_path / "executed"))
    path = tmp_path / "checkpoint.pt"
    whole = {"format": checkpoint.FORMAT, "payload": Payload()}
    torch.save(whole, path)
    with pytest.raises(CheckpointError, match="broken.*--restart"):
        load(path)
    assert not (tmp_path / "executed").exists()
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99"):
        load(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*--restart"):
        load(path)


def test_a_checkpoint_that_lacks_something_is_named(broken, capsys):
    exports = broken(1)
    path = exports / f".{NAME}.running" / "checkpoint.pt"
    whole = load(path)
    assert {"format", "others", *checkpoint.SAVED} == whole.keys()  # "others": of further processes, here none
    for key in checkpoint.SAVED:
        torch.save({k: v for k, v in whole.items() if k != key}, path)
        with pytest.raises(CheckpointError, match=rf"checkpoint\.pt is incomplete: it lacks {key}; --restart"):
            load(path)
    capsys.readouterr()
    assert resume(exports) == 2
    assert "is incomplete" in capsys.readouterr().err
    assert main([*RUN, f"exports={exports}", "--restart", "epochs=1"]) == 0  # what the message advises


@pytest.mark.parametrize("spoilt", [
    {"about": 5}, {"about": {}}, {"position": "ab"}, {"position": (0, -1)}, {"rng": {}}, {"optimizer": {}},
    {"model": {}}, {"recorder": 7}, {"callbacks": {"ema": None}}, {"epoch": None}, {"state": None},
    {"state": {"rows": []}}, {"optimizer": {"state": {}, "param_groups": [{"lr": "fast"}]}}])
def test_a_checkpoint_of_nonsense_is_named(broken, capsys, spoilt):
    exports = broken(3)
    path = exports / f".{NAME}.running" / "checkpoint.pt"
    torch.save(load(path) | spoilt, path)
    capsys.readouterr()
    assert resume(exports) == 2
    err = capsys.readouterr().err
    assert "checkpoint.pt" in err and "--restart" in err and "Traceback" not in err


def damaged(saved, key, value):
    "A copy of an optimizer's state with one entry of its first group or of a parameter's state replaced."
    saved = deepcopy(saved)
    entry = saved["param_groups"][0] if key in saved["param_groups"][0] else saved["state"][0]
    entry[key] = value
    return saved


@pytest.mark.parametrize("key, value", [
    ("lr", "fast"), ("lr", None), ("lr", float("nan")), ("momentum", True), ("dense", 3), ("weight_decay", [0.1]),
    ("momentum_buffer", torch.zeros(3)), ("momentum_buffer", 7), ("other", torch.zeros(1))])
def test_a_damaged_entry_of_the_optimizer_is_named(key, value):
    net = torch.nn.Conv2d(3, 4, 3)
    opt, other = muon(net.parameters(), lr=0.1), muon(net.parameters(), lr=0.1)
    net(torch.ones(1, 3, 8, 8)).sum().backward()
    opt.step()
    restore_optimizer(other, opt.state_dict(), keep_hypers=False)
    with pytest.raises(ValueError, match=rf"the optimizer's .*({key}|damaged)"):
        restore_optimizer(other, damaged(opt.state_dict(), key, value), keep_hypers=False)


SCHEDULES = {
    "plateau": dict(patience=0), "step": dict(step_size=2, gamma=0.5), "cosine": {}, "warmup_cosine": dict(warmup=1),
    "cyclic": dict(step_size_up=3, step_size_down=2), "one_cycle_torch": dict(max_lr=0.3)}


def test_all_schedules_are_tried():
    assert set(SCHEDULES) == set(schedule.__all__)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_a_changed_recipe_catches_up(name):
    "It stands where it would, had it been there from the start."
    whole = Scheduled(name)
    whole.steps(23)
    late = Scheduled(name)
    late.state.rows = [{"valid_accuracy": 1 / 4}, {"valid_accuracy": 1 / 8}]  # what Scheduled shows after an epoch
    late.cb.catch_up(2, 1, 4)
    late.done = 9
    late.steps(14)
    assert late.rates == pytest.approx(whole.rates[9:])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on(name, tmp_path):
    whole = Scheduled(name)
    whole.steps(23)
    first = Scheduled(name)
    first.steps(9)
    torch.save({"sched": plain(first.cb.state_dict()), "opt": first.opt.state_dict()}, tmp_path / "x.pt")
    second, saved = Scheduled(name), torch.load(tmp_path / "x.pt", weights_only=True)
    second.opt.load_state_dict(saved["opt"])
    second.cb.load_state_dict(saved["sched"])
    second.done = 9
    second.steps(14)
    assert first.rates + second.rates == whole.rates and len(set(whole.rates)) > 2


class Scheduled:
    "A schedule over six epochs of four steps, alone with its optimizer; accuracy falls, so that a plateau acts."

    def __init__(self, name):
        self.state, weight = TrainState(), torch.nn.Parameter(torch.zeros(1))
        self.cb = Scheduler(getattr(schedule, name)(**SCHEDULES[name]), self.state)
        weight.grad = torch.zeros(1)
        self.opt = sgd([weight], lr=0.1)
        self.cb.learn = SimpleNamespace(opt=self.opt, n_epoch=6, dls=SimpleNamespace(train=range(4)), training=True)
        self.cb.before_fit()
        self.rates, self.done = [], 0

    def steps(self, count):
        for _ in range(count):
            self.rates.append(self.opt.hypers[-1]["lr"])
            self.opt.step()
            self.cb.after_batch()
            self.done += 1
            if self.done % 4 == 0:
                self.state.rows.append({"valid_accuracy": 1 / self.done})
                self.cb.after_epoch()


def test_of_a_metric_only_its_sums_are_saved():
    "Not the last batch, which may be on a GPU that the process that resumes has not."
    metric = EMAAccuracy(None)
    metric.correct, metric.count, metric.predicted = 2, 3, torch.ones(3)
    learn = SimpleNamespace(pct_train=0.5, recorder=SimpleNamespace(metrics=[metric]))
    assert epoch_state(learn, SimpleNamespace(epoch_state=dict))["metrics"] == {
        "ema_accuracy": {"correct": 2, "count": 3}}


def test_every_rng_goes_on():
    saved = rng_state()

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    first = draw()
    assert draw() != first
    set_rng_state(saved)
    assert draw() == first
