"""Trials in the storage, SQLite and PostgreSQL: claimed once each; those of dead workers come back, and no others."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from filelock import FileLock

from cifar_fast.sweep.locks import worker_id
from cifar_fast.sweep.pruners import bending, by_percent, make_pruner
from cifar_fast.sweep.storage import StorageError, masked, open_storage
from cifar_fast.sweep.study import MOST_DEATHS, WORKERS, Definition, Sweep, SweepError, make_sampler

DEFINITION = Definition("sprint", "abc", ("valid=1",), {"lr": "0.01..0.1"}, "tpe", "median", 42)
SAMPLER, PRUNER = make_sampler("tpe", 1), make_pruner("none", 2)
fork = multiprocessing.get_context("fork")


@pytest.fixture(params=["sqlite", "postgresql"])
def made(request, tmp_path):
    "A function that opens the sweep anew, as another process does."
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None

    def open_sweep(trials=None, grace=300):
        sweep = Sweep(f"one-{tmp_path.name}", tmp_path, url, grace)
        sweep.create_or_join(DEFINITION, trials)
        return sweep
    return open_sweep


def forked(target, *args):
    process = fork.Process(target=target, args=args)
    process.start()
    return process


def works(made, out):
    sweep = made()
    with worker_id(sweep.folder / WORKERS) as worker:
        while (trial := sweep.claim(worker, SAMPLER, PRUNER)) is not None:
            value = trial.suggest_float("lr", 0.01, 0.1)
            assert sweep.finish(trial, worker, "COMPLETE", value)
            with open(out, "a") as f:
                f.write(f"{trial.number}\n")


def test_every_trial_is_claimed_once_by_workers_side_by_side(made, tmp_path):
    made(20).storage.engine.dispose()
    workers = [forked(works, made, tmp_path / "out") for _ in range(4)]
    for worker in workers:
        worker.join()
    counted = Counter(map(int, (tmp_path / "out").read_text().split()))
    assert counted == Counter(range(20)) and [w.exitcode for w in workers] == [0] * 4
    trials = made().trials()
    assert len(trials) == 20 and all(t.state.name == "COMPLETE" for t in trials)
    assert len({t.params["lr"] for t in trials}) == 20  # no two workers draw the same


def dies_in_a_claim(made, step):
    "Killed before the given one of the storage's writes of a claim."
    sweep, calls = made(), []

    def killing(call, *args):
        calls.append(args)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)

    for name in ("set_trial_user_attr", "record_heartbeat", "set_trial_state_values"):
        setattr(sweep.storage, name, partial(killing, getattr(sweep.storage, name)))
    with worker_id(sweep.folder / WORKERS) as worker:
        sweep.claim(worker, SAMPLER, PRUNER)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_anywhere_in_a_claim_loses_nothing(made):
    made(1).storage.engine.dispose()
    for step in (1, 2, 3, 4):  # 4: after the claim
        worker = forked(dies_in_a_claim, made, step)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    sweep = made()
    with worker_id(sweep.folder / WORKERS) as me:
        trial = sweep.claim(me, SAMPLER, PRUNER)
        assert trial.number == 0 and len(sweep.trials()) == 1
        assert sweep.trials()[0].user_attrs["deaths"] == 1  # it was running in the last of them alone
        assert sweep.claim(me, SAMPLER, PRUNER) is None


def test_parameters_and_epochs_stay_with_a_trial_that_changes_its_worker(made):
    sweep = made(1)
    trial = sweep.claim("elsewhere/x", SAMPLER, PRUNER)
    drawn = trial.suggest_float("lr", 0.01, 0.1)
    trial.report(0.5, 1)
    sweep.give_back(trial, "elsewhere/x")
    again = sweep.claim("elsewhere/y", SAMPLER, PRUNER)
    assert again.number == 0 and again.suggest_float("lr", 0.01, 0.1) == drawn
    assert sweep.trials()[0].intermediate_values == {1: 0.5}
    assert not sweep.finish(trial, "elsewhere/x", "COMPLETE", 0.9)  # it is no longer that worker's
    assert sweep.finish(again, "elsewhere/y", "COMPLETE", 0.7) and sweep.trials()[0].value == 0.7


def test_a_silent_worker_of_another_machine_is_dead_after_the_grace_and_not_before(made):
    sweep = made(1, grace=2)
    sweep.claim("elsewhere/x", SAMPLER, PRUNER)
    assert sweep.claim("elsewhere/y", SAMPLER, PRUNER) is None
    time.sleep(3.5)
    assert sweep.claim("elsewhere/y", SAMPLER, PRUNER).number == 0


def test_a_living_worker_of_this_machine_keeps_its_trial_however_silent(made):
    sweep = made(1, grace=1)
    with worker_id(sweep.folder / WORKERS) as worker:
        sweep.claim(worker, SAMPLER, PRUNER)
        time.sleep(2.5)
        assert sweep.claim("elsewhere/y", SAMPLER, PRUNER) is None
    (sweep.folder / WORKERS / f"{worker.rpartition('/')[2]}.lock").touch()  # as a killed one leaves it
    assert sweep.claim("elsewhere/y", SAMPLER, PRUNER).number == 0


def pruned_after(study, epochs, last):
    "Epochs of a new trial until it is pruned, all of them otherwise; it goes in a straight line from half to `last`."
    import optuna

    study.enqueue_trial({"epochs": epochs})
    trial = study.ask({"epochs": optuna.distributions.IntDistribution(10, 30)})
    for epoch in range(1, epochs + 1):
        trial.report(last * (1 + epoch / epochs) / 2, epoch)
        if epoch < epochs and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    study.tell(trial, last)
    return epochs


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_where_epochs_are_searched_the_bad_trials_are_pruned_and_not_the_long_ones(pruner):
    import optuna

    study = optuna.create_study(direction="maximize", study_name="one")

    def run(epochs, last):
        study.pruner = make_pruner(pruner, 60, 10)  # 60: the recipe's own
        return pruned_after(study, epochs, last)

    for i in range(8):
        assert run(10, 0.9 + i / 1000) == 10  # each the best so far
    assert run(30, 0.95) == 30
    assert min(run(30, 0.3) for _ in range(4)) < 15  # hyperband lets some run to their end
    assert run(20, 0.96) == 20


def test_accuracy_by_percent_of_a_trials_own_epochs():
    assert by_percent({1: 0.1, 2: 0.3}, 4) == pytest.approx({p: 0.1 + 0.2 * (p - 25) / 25 for p in range(25, 51)})
    assert by_percent({1: 0.1, 2: 0.2, 3: 0.3}, 300) == {1: 0.3} and by_percent({1: 0.1}, 30) == by_percent({}, 9) == {}


def test_no_trial_is_pruned_by_default_where_the_schedule_is_bent():
    assert bending(["lr", "fit.pct_start", "sched", "epochs", "mix.until"]) == ["fit.pct_start", "sched", "mix.until"]


def test_a_trial_that_kills_its_workers_fails_at_last(tmp_path):
    sweep = Sweep("one", tmp_path)
    sweep.create_or_join(DEFINITION, 1)
    for _ in range(MOST_DEATHS):
        with worker_id(tmp_path / WORKERS) as worker:
            assert sweep.claim(worker, SAMPLER, PRUNER)
        (tmp_path / WORKERS / f"{worker.rpartition('/')[2]}.lock").touch()
    assert sweep.claim("elsewhere/y", SAMPLER, PRUNER) is None
    trial, = sweep.trials()
    assert trial.state.name == "FAIL" and "memory" in trial.user_attrs["error"] and sweep.finished()


def test_another_sweep_of_the_name_is_refused_with_what_differs(made):
    sweep = made(4)
    other = replace(DEFINITION, space={"lr": "0.1..0.2", "bs": "64,128"}, fixed=("valid=2",))
    with pytest.raises(SweepError) as e:
        sweep.create_or_join(other, 4)
    assert all(w in str(e.value) for w in ("lr: 0.01..0.1 then, 0.1..0.2 now", "bs: – then", "valid=2 now", "name="))
    with pytest.raises(SweepError, match="has 4 already"):
        sweep.create_or_join(DEFINITION, 3)
    sweep.create_or_join(replace(DEFINITION, pruner="none"), 4, any_pruner=True)  # the default was another one then
    assert sweep.definition == DEFINITION
    sweep.create_or_join(DEFINITION, 6)
    assert len(sweep.trials()) == 6
    with pytest.raises(SweepError, match="no sweep"):
        Sweep("two", sweep.folder, sweep.url).create_or_join(None, None)


def test_storages_that_cannot_be_used_are_named_without_their_password(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"me:\*\*\*@127.0.0.1:1/x.*refused.*check host"):
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)
    with pytest.raises(StorageError, match="expected postgresql"):
        open_storage("mysql://x", tmp_path)
    (tmp_path / "study.db").write_text("no database" * 99)
    with pytest.raises(StorageError, match=r"study.db.*move the file"):
        open_storage(None, tmp_path)
    for secret in ("postgresql://me:s@secret@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=me&password=secret"):
        with pytest.raises(StorageError) as e:
            open_storage(secret, tmp_path)
        assert "secret" not in str(e.value) and ("%40" in str(e.value)) == (secret.count("@") > 1)
    with pytest.raises(StorageError, match=r"--storage \(nothing\): expected postgresql"):  # an empty variable
        open_storage("", tmp_path)
    assert masked("postgresql://a:b@c/d") == "postgresql://a:***@c/d"
    assert masked("postgresql://a@c:5432/d?x=1") == "postgresql://a@c:5432/d?x=1"
    open_storage(None, tmp_path / "a?b %41 {x} é#1")
    assert (tmp_path / "a?b %41 {x} é#1" / "study.db").is_file()


def test_without_optuna_the_command_says_what_to_install(monkeypatch, capsys):
    from cifar_fast.cli.main import main

    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert main(["sweep", "sprint", "data=digits", "valid=300", "lr=0.1..0.2"]) == 2
    assert 'pip install "cifar_fast[sweep]"' in capsys.readouterr().err


def test_locks_are_free_at_once(tmp_path):
    with worker_id(tmp_path) as worker, pytest.raises(TimeoutError):
        FileLock(tmp_path / f"{worker.rpartition('/')[2]}.lock").acquire(timeout=0)
    assert not list(tmp_path.iterdir())
