"""A run that stops, wherever it does, goes on to the very same weights and history."""

import os
import signal
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from breaking import STEPS, at, resume
from kills import NAME, RUN, bytes_that_differ, harness, history, strays, weights, working

from cifar_fast.cli.main import main
from cifar_fast.training.callbacks.checkpoint import load
from cifar_fast.utils.signals import defer_signals


@pytest.mark.parametrize("saves, where", [
    (5, "in epoch 1 of 2, after 5 batches"), (STEPS, "in epoch 1 of 2, after 8 batches"),
    (STEPS + 1, "after epoch 1 of 2"), (2 * STEPS, "in epoch 2 of 2, after 7 batches"),
    (2 * STEPS + 2, "after its last epoch")])
def test_it_goes_on_to_the_same_weights_and_history(plain, broken, capsys, saves, where):
    exports = broken(saves)
    assert "resume with: python -m cifar_fast recipe final data=digits" in capsys.readouterr().err
    assert resume(exports) == 0
    assert f"resumes {where}" in capsys.readouterr().out
    assert bytes_that_differ(weights(plain), weights(exports)) == 0
    assert history(exports).equals(history(plain))
    assert len(pd.read_csv(exports / "runs.csv")) == 1 and not strays(exports)


def test_a_run_resumed_after_the_last_batch_of_its_first_epoch_draws_a_training_batch(broken):
    "No batch of that epoch is left to draw: the next one is drawn."
    exports = broken(STEPS, "report=yes")
    assert resume(exports, "report=yes") == 0
    assert (exports / NAME / "augmented.png").stat().st_size > 10_000


def test_comparing_would_see_one_other_bit(plain):
    one = weights(plain)
    other = {k: v.clone() for k, v in one.items()}
    other["head.fc.weight"].view(torch.uint8).flatten()[0] ^= 1
    assert bytes_that_differ(one, other) == 1


def test_workers_go_on_in_the_middle_of_an_epoch(plain, broken):
    exports = broken(6, "workers=2")
    assert resume(exports) == 0
    assert bytes_that_differ(weights(plain), weights(exports)) == 0


def test_a_run_that_is_killed_goes_on(tmp_path):
    found = harness(3, tmp_path, seed=4)
    assert found["kills"].total() >= 3 and found["lost"] == found["different"] == 0 and not found["strays"]


def test_a_signal_in_the_middle_of_a_write_to_stderr_is_received_too(monkeypatch, capfd):
    class Writing:
        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

        flush = write

    checkpoint = SimpleNamespace(stop=None, done=False)
    with monkeypatch.context() as patch, defer_signals(checkpoint):
        patch.setattr(sys, "stderr", Writing())
        os.kill(os.getpid(), signal.SIGINT)
    assert checkpoint.stop.exit_code == 130 and "SIGINT: finishing the step" in capfd.readouterr().err


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_end_and_saves(plain, tmp_path, monkeypatch, capfd, signum, code):
    before = signal.getsignal(signum)
    at(monkeypatch, 5, lambda: os.kill(os.getpid(), signum))
    assert main([*RUN, "checkpoint_minutes=0", f"exports={tmp_path}"]) == code
    assert signal.getsignal(signum) is before
    err = capfd.readouterr().err
    assert "finishing the step" in err and "--resume" in err
    monkeypatch.undo()
    assert load(working(tmp_path) / "checkpoint.pt")["position"] == (0, 5)
    assert resume(tmp_path, "checkpoint_minutes=0") == 0
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch, digits):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at(monkeypatch, 5, twice)
    assert main([*RUN, "checkpoint_minutes=0", f"exports={tmp_path}"]) == 130
    assert not (working(tmp_path) / "checkpoint.pt").exists()


def test_a_patient_run_counts_on(broken, capsys):
    "Waiting is remembered: the run stops where it would have, after the third epoch without a better one."
    lazy = ("epochs=9", "patience=3", "lr=1e-9", "ema=none")
    exports = broken(2 * (STEPS + 1), *lazy)
    assert resume(exports, *lazy) == 0
    assert len(history(exports)) == 4
