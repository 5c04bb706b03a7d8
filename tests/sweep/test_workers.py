"""One trial in one worker: its accuracy, its seconds, its GPU."""

import html
import multiprocessing
import os
import shlex
import signal
import time
from types import SimpleNamespace

import pytest

from cifar_fast.sweep import page, pool, run, worker
from cifar_fast.sweep.pruners import make_pruner
from cifar_fast.sweep.snapshot import Snapshot, Trial
from cifar_fast.sweep.study import Definition, Sweep, SweepError, make_sampler
from cifar_fast.training.state import TrainState
from cifar_fast.utils.cores import PLACE
from cifar_fast.utils.signals import StopRequested


def test_of_unequal_classes_the_balanced_accuracy_decides(tmp_path, monkeypatch):
    "As after each epoch."
    (tmp_path / "trial-000").mkdir()
    (tmp_path / "trial-000" / "card.json").touch()
    metrics = SimpleNamespace(accuracy=0.9, balanced_accuracy=0.6)
    monkeypatch.setattr(worker, "read_card", lambda _: SimpleNamespace(metrics=metrics, epochs=1, resumed=None))
    found = worker.outcome(SimpleNamespace(folder=tmp_path), SimpleNamespace(number=0), "w", "sprint", [], float)
    assert found[:2] == ("COMPLETE", 0.6)


def test_the_seconds_of_a_trial_are_those_of_all_its_workers(tmp_path, monkeypatch):
    sweep = Sweep("one", tmp_path)
    sweep.create_or_join(Definition("sprint", "abc", (), {}, "random", "none", 42), 1)
    made, clock = make_sampler("random", 1), [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(worker.Progress, "after_epoch", lambda self: None)

    def run(result):
        def outcome(sweep, trial, name, recipe, changes, spent):
            clock[0] += 10
            progress = worker.TrialProgress(TrainState(rows=[{"epoch": 1, "valid_accuracy": 0.5}]), "held-out",
                                            sweep=sweep, trial=trial, worker=name, epochs=1, spent=spent)
            progress.after_epoch()
            clock[0] += 5
            if isinstance(result, BaseException):
                raise result
            return "COMPLETE", result, {}

        monkeypatch.setattr(worker, "outcome", outcome)
        trial = sweep.claim("elsewhere/x", made, make_pruner("none", 1))
        worker.run_trial(sweep, trial, "elsewhere/x", "sprint", SimpleNamespace(suggest=lambda trial: []))

    with pytest.raises(StopRequested):
        run(StopRequested(signal.SIGINT))
    assert sweep.trials()[0].user_attrs["seconds"] == 15
    with pytest.raises(SystemExit):  # as one that is killed: nobody gives the trial back
        run(SystemExit())
    assert sweep.trials()[0].user_attrs["seconds"] == 25
    sweep.storage.set_trial_state_values(sweep.trials()[0]._trial_id, sweep.States.WAITING)
    run(0.5)
    assert sweep.trials()[0].user_attrs["seconds"] == 40


def places(folder):
    "Leaves its place; the first one of place 1 dies."
    place, first = os.environ[PLACE], not list(folder.glob("1-*"))
    (folder / f"{place}-{os.getpid()}").touch()
    return int(place == "1" and first)


def test_a_worker_that_replaces_another_takes_its_place(tmp_path, monkeypatch):
    "And its GPU."
    monkeypatch.setattr(pool, "process_context", lambda: multiprocessing.get_context("fork"))  # starts at once
    monkeypatch.setattr(pool, "LOOK", 0.05)
    pool.run_pool(places, (tmp_path,), 3, lambda: 0)
    assert sorted(p.name.partition("-")[0] for p in tmp_path.iterdir()) == ["0", "1", "1", "2"]


@pytest.mark.parametrize("good_looks", [0, 1])
def test_a_look_that_fails_leaves_no_worker(monkeypatch, good_looks):
    "At once, or later: a worker that went on would be waited for when the command ends."
    monkeypatch.setattr(pool, "process_context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr(pool, "LOOK", 0.05)
    looks = iter([0] * good_looks)
    with pytest.raises(StopIteration):
        pool.run_pool(time.sleep, (600,), 2, lambda: next(looks))
    assert not multiprocessing.active_children()


def test_trials_that_failed_before_do_not_stop_a_sweep_that_goes_on(tmp_path, monkeypatch, capsys):
    failed = [Trial(i, "failed", {"lr": 0.1}, {}, error="no space") for i in range(3)]
    trials = [*failed, *(Trial(i, "waiting", {}, {}) for i in range(3, 8))]
    monkeypatch.setattr(run, "take", lambda *_: Snapshot("n", "sprint", [], {"lr": "0.1,0.2"}, "grid", "none",
                                                         "running", trials))
    monkeypatch.setattr(run, "report", lambda *_: None)
    watch = run.Watch(SimpleNamespace(folder=tmp_path))
    assert watch() == 3
    trials[3:6] = [Trial(3, "failed", {"lr": 0.1}, {}), Trial(4, "complete", {"lr": 0.1}, {}, 0.5), failed[0]]
    assert watch() == 5  # not all of this command's
    trials[3:6] = [Trial(i, "failed", {"lr": 0.1}, {}, error="no space again") for i in range(3, 6)]
    watch = run.Watch(SimpleNamespace(folder=tmp_path))
    watch.before = {0, 1, 2}
    with pytest.raises(SweepError, match=f"first 3 trials all failed.*no space again.*{tmp_path}/logs.*--resume"):
        watch()


def test_the_command_in_a_report_names_the_place_of_the_sweep(tmp_path, monkeypatch):
    folder = tmp_path / "my runs" / "sweeps" / "mine"
    folder.mkdir(parents=True)
    snapshot = Snapshot("mine", "sprint", ["data=digits"], {"lr": "0.1,0.2"}, "grid", "none", "finished", [])
    monkeypatch.setattr(page, "draw", lambda *_: [])
    for local in (False, True):
        page.rebuild(snapshot, folder)
        text = html.unescape((folder / "report.html").read_text())
        line = next(part for part in text.split("<code>") if "cifar_fast sweep" in part).split("</code>")[0]
        words = shlex.split(line)
        assert "name=mine" in words and f"exports={tmp_path}/my runs" in words and ("--storage" in words) != local
        (folder / "study.db").touch()
