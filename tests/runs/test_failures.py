"""Failures that explain themselves: what a library's error means, what is kept, how to go on."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from breaking import STEPS, at, resume
from kills import NAME, RUN, bytes_that_differ, weights, working

from cifar_fast.cli.main import main
from cifar_fast.recipe import load_recipe
from cifar_fast.runs.failures import explained, is_worker_cut_off, wait_for_dead_worker
from cifar_fast.training.callbacks.checkpoint import load


@pytest.mark.parametrize("error, told", [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), "bs=128: CUDA out of memory.*Try bs=64"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
     "Try bs=64"),
    (MemoryError(), "MemoryError. Try bs=64"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "Try workers=0")])
def test_an_error_of_a_library_is_told_with_what_to_try(tmp_path, monkeypatch, capsys, digits, error, told):
    from fastai.losses import CrossEntropyLossFlat

    call, made = CrossEntropyLossFlat.__call__, []

    def fail(self, *args):
        made.append(1)
        if len(made) == 5:
            raise error
        return call(self, *args)

    monkeypatch.setattr(CrossEntropyLossFlat, "__call__", fail)
    assert main([*RUN, f"exports={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert re.search(told, err) and "--resume" in err and "Traceback" not in err


@pytest.mark.parametrize("text", [
    "MPS backend out of memory (MPS allocated: 8 GB)", "CUDA error: out of memory",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"])
def test_every_way_to_say_that_a_gpus_memory_is_full(text):
    assert "out of memory" in str(e := explained(RuntimeError(text))) and "smaller batch" in str(e)


@pytest.mark.parametrize("command", [
    ["recipe", "final", "data=digits", "--dry-run"], ["lr_find", "final", "data=digits"],
    ["recipe", "final", "data=digits", "lr=find"]])
def test_no_command_answers_with_a_traceback(tmp_path, monkeypatch, capsys, digits, command):
    from fastai.losses import CrossEntropyLossFlat

    def fail(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(CrossEntropyLossFlat, "__call__", fail)
    typed = [*command[:3], f"exports={tmp_path}", *command[3:]]
    assert main(typed) == 2
    assert "cifar_fast: out of memory" in capsys.readouterr().err


def test_a_signal_while_it_exports_is_told_and_the_run_can_go_on(plain, tmp_path, monkeypatch, capsys, digits):
    from cifar_fast.runs import run as train

    def killed(*args):
        os.kill(os.getpid(), signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(train, "write_model", killed)
        assert main([*RUN, f"exports={tmp_path}"]) == 143
    err = capsys.readouterr().err
    assert "keeps the whole training" in err and "--resume" in err
    assert resume(tmp_path) == 0
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_row_is_added_costs_no_row(tmp_path, monkeypatch, digits, signum):
    "The run is complete: row and export are there, and nothing is left to resume."
    from cifar_fast.reporting.results import store

    write = store.write_text

    def interrupted(path, text):
        if path.name == store.OWN:
            os.kill(os.getpid(), signum)
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_text", interrupted)
        assert main([*RUN, f"exports={tmp_path}"]) == 128 + signum
    assert len(pd.read_csv(tmp_path / store.OWN)) == 1
    assert weights(tmp_path) and not working(tmp_path).exists()


KILLER = """
import multiprocessing, sys
from cifar_fast.training.callbacks.ema import EMA
from cifar_fast.cli.main import main

after_step = EMA.after_step

def watched(self):
    after_step(self)
    if self.updates == 2:
        for process in multiprocessing.active_children():
            process.kill()

EMA.after_step = watched
sys.exit(main(sys.argv[1:]))
"""


def test_a_worker_that_is_killed_is_told(tmp_path, digits):
    "In a process of its own: torch's handler of a dead child raises wherever the process happens to be."
    found = subprocess.run([sys.executable, "-c", KILLER, *RUN, "workers=1", f"exports={tmp_path}"],
                           capture_output=True, text=True, timeout=300)
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "a worker process died" in found.stderr and "workers=0" in found.stderr


def linger_and_die(pipe):
    pipe.close()  # what it had to say breaks off before its end is signalled
    time.sleep(0.3)
    os._exit(1)


def test_the_end_of_a_worker_that_fell_silent_is_waited_for():
    "Or torch's handler raises in the middle of telling it: seen once in twelve runs on a busy machine."
    def torchs(signum, frame):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    before = signal.signal(signal.SIGCHLD, torchs)
    try:
        ours, its = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=linger_and_die, args=(its,))
        child.start()
        its.close()
        with pytest.raises(EOFError):
            ours.recv()
        wait_for_dead_worker(1, seconds=60)
        assert child.exitcode == 1
        child.join()  # nothing is raised any more
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_one_that_lives_on_is_not_waited_for_long():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        wait_for_dead_worker(1, seconds=0.1)
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("e, silent", [(ConnectionResetError(104, "reset by peer"), True), (EOFError(), True),
                                       (BrokenPipeError(32, "Broken pipe"), False), (OSError(5, "other"), False)])
def test_a_reader_of_the_output_that_has_gone_is_no_worker(e, silent):
    recipe = load_recipe("sprint")
    assert is_worker_cut_off(e, replace(recipe, workers=2)) is silent
    assert not is_worker_cut_off(e, replace(recipe, workers=0))


GROUP = """
import os, signal, sys
from cifar_fast.training.callbacks.ema import EMA
from cifar_fast.cli.main import main

after_step = EMA.after_step

def watched(self):
    after_step(self)
    if self.updates == 3:
        if not os.fork():
            os.killpg(os.getpgrp(), signal.SIGTERM)
            os._exit(0)

EMA.after_step = watched
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow  # one to the process itself is tested in test_resume.py
def test_a_signal_to_the_whole_group_saves_too(plain, tmp_path, digits):
    "As systemd, timeout and batch systems send it: to the processes that augment as well."
    found = subprocess.run([sys.executable, "-c", GROUP, *RUN, "workers=2", f"exports={tmp_path}"],
                           capture_output=True, text=True, timeout=300, start_new_session=True)
    assert found.returncode == 143 and "died" not in found.stderr, found.stderr
    assert load(working(tmp_path) / "checkpoint.pt")["position"] == (0, 3)
    assert resume(tmp_path) == 0
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path, monkeypatch, capsys, digits):
    def spoil():
        raise DivergedError("the loss became nan")

    from cifar_fast.training.callbacks.history import DivergedError
    at(monkeypatch, 5, spoil)
    assert main([*RUN, f"exports={tmp_path}"]) == 2
    assert "last good checkpoint is kept" in capsys.readouterr().err
    monkeypatch.undo()
    assert load(working(tmp_path) / "checkpoint.pt")["position"] == (0, 4)
    assert resume(tmp_path, "lr=0.01", "--allow-changes") == 0
    rates = pd.read_csv(tmp_path / NAME / "history.csv")["lr"]
    plain_rates = one_cycle_rates(0.01)
    assert rates.iloc[-1] == pytest.approx(plain_rates[-1])


def one_cycle_rates(lr):
    "The rate of each step of RUN."
    from fastai.callback.schedule import combined_cos

    from cifar_fast.recipe import load_recipe

    fit = load_recipe("final").fit.keywords
    at_share = combined_cos(fit["pct_start"], lr / fit["div"], lr, lr / fit["div_final"])
    return [float(at_share(i / (2 * STEPS))) for i in range(2 * STEPS)]


WILD = ["recipe", "final", "data=digits", "bs=512", "opt=sgd", "fit=constant", "mix=none", "ema=none", "clip=0",
        "tta=0", "report=no"]


def explodes(monkeypatch, stopped=False):
    "A rate far too high from the second epoch on; `stopped` presses Ctrl-C in its first step."
    from cifar_fast.training.callbacks.seeding import Seeding

    before_train = Seeding.before_train

    def wild(self):
        before_train(self)
        if self.epoch == 1:
            for group in self.opt.opt.param_groups:
                group["lr"] = 1e6
            if stopped:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Seeding, "before_train", wild)


@pytest.mark.slow  # the same without Ctrl-C is tested below
def test_ctrl_c_while_the_loss_explodes_spoils_no_checkpoint(tmp_path, monkeypatch, capsys, digits):
    with monkeypatch.context() as patch:
        explodes(patch, stopped=True)
        assert main([*WILD, "epochs=6", "lr=0.01", f"exports={tmp_path}"]) == 130
    assert "the run has diverged, so the checkpoint from before is kept" in capsys.readouterr().err
    assert load(working(tmp_path) / "checkpoint.pt")["position"] == (1, 0)
    assert main([*WILD, "epochs=6", "lr=0.01", f"exports={tmp_path}", "--resume"]) == 0


def test_a_loss_that_explodes_spoils_no_checkpoint(tmp_path, monkeypatch, capsys, digits):
    "The former checkpoint stays, and the run goes on from it at a lower rate."
    with monkeypatch.context() as patch:
        explodes(patch)
        assert main([*WILD, "epochs=6", "lr=0.01", f"exports={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "cifar_fast: the loss became" in err and "learning rate of 1e+06" in err and "Exception occ" not in err
    assert "last good checkpoint is kept" in err
    assert load(working(tmp_path) / "checkpoint.pt")["position"] == (1, 0)
    assert main([*WILD, "epochs=6", "lr=0.001", f"exports={tmp_path}", "--resume", "--allow-changes"]) == 0
    assert (tmp_path / NAME).exists()


def test_a_net_whose_outputs_are_not_finite_is_no_result(tmp_path, capsys, digits):
    assert main([*WILD, "bs=1024", "epochs=1", "lr=1e38", f"exports={tmp_path}"]) == 2
    assert "nothing was exported" in capsys.readouterr().err
    assert not (tmp_path / NAME).exists() and not (tmp_path / "runs.csv").exists()
