"""Whole sweeps on digits: killed workers, Ctrl-C, the winner; and seeds."""

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pandas as pd
import pytest
from faults import LONG, NAME, SPACE, TINY, faulted, figures, living, postgres, postgres_programs, trainers
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.data.sources import load_source
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import load_recipe
from cifar_fast.reporting.results import OWN, read, summarize
from cifar_fast.runs.run_dir import Interrupted, RunFolder
from cifar_fast.sweep import pool, seeds, worker
from cifar_fast.sweep.pruners import make_pruner
from cifar_fast.sweep.study import Definition, Sweep, SweepError, make_sampler
from cifar_fast.training.state import TrainState
from cifar_fast.utils.device import PLACE
from cifar_fast.utils.signals import StopRequested


def words(exports, *more, tiny=TINY):
    return ["sweep", "sprint", *SPACE, *tiny, f"exports={exports}", *more]


def when(condition, act, seconds=900):
    "Calls `act` in a thread, once `condition` gives something true, with that."
    def wait():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                act(found)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def swept(tmp_path_factory, digits):
    "The exports of a sweep of 6 trials whose workers were killed twice while they trained, and its output."
    exports = tmp_path_factory.mktemp("swept")
    folder, killed = exports / "sweeps" / NAME, []

    def kill(pids):
        os.kill(pids[0], signal.SIGKILL)
        killed.append(pids[0])
        if len(killed) < 2:
            when(lambda: [p for p in trainers(folder) if p not in killed], kill)

    when(lambda: trainers(folder), kill)
    assert main(words(exports, "--trials", "6", "--jobs", "2", "--pruner", "none")) == 0
    assert len(killed) == 2
    return exports


def test_killed_workers_lose_nothing_and_their_trials_resume(swept):
    found = figures(swept / "sweeps" / NAME)
    assert (found["state"], found["complete"], found["lost"], found["stuck"], found["double"]) == (
        "finished", 6, 0, 0, 0)
    # A worker that was killed just after its trial was recorded had none any more.
    assert found["workers died"] in (1, 2) and found["resumed"] >= 1 and found["epochs"] == {2}


def test_a_trial_is_a_run_that_never_saw_the_test_set(swept):
    folder = swept / "sweeps" / NAME
    for path in folder.glob("trial-*"):
        card = read_card(path)
        assert (card.split, card.data.test, card.metrics.n) == ("held-out", 0, 1100)
        assert not (path / "report.html").exists() and not (path / "model.onnx").exists()
    study = Sweep(NAME, folder)
    study.create_or_join(None, None)
    values = {t.number: t.value for t in study.trials()}
    assert values == {int(p.name[-3:]): read_card(p).metrics.accuracy for p in folder.glob("trial-*")}


def test_the_report_has_every_trial_and_loads_nothing(swept):
    text = (swept / "sweeps" / NAME / "report.html").read_text()
    assert text.count("<tr>") > 6 and "Parallel" in text and "Importance" in text
    assert "a worker died" in text or "2 workers died" in text  # perhaps both of one trial
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text


def test_the_same_command_shows_what_is_there_and_final_tests_the_winner_once(swept, capsys):
    assert main(words(swept, "--trials", "6", "--pruner", "none", "--final")) == 0
    out = capsys.readouterr().out
    best = max(json.loads((swept / "sweeps" / NAME / "sweep.json").read_text())["trials"], key=lambda t: t["accuracy"])
    assert f"best: trial {best['number']}" in out
    card = read_card(swept / f"{NAME}-best")
    assert (card.split, card.metrics.n, card.recipe["lr"]) == ("test", 359, best["params"]["lr"])
    before = (swept / f"{NAME}-best" / "card.json").stat().st_mtime_ns
    assert main(["sweep", "sprint", "data=digits", f"exports={swept}", "--resume", "--final"]) == 0
    assert "trained and tested already" in capsys.readouterr().out
    assert (swept / f"{NAME}-best" / "card.json").stat().st_mtime_ns == before


def test_ctrl_c_stops_at_a_checkpoint_and_resume_needs_no_settings(tmp_path, capsys, digits):
    folder = tmp_path / "sweeps" / NAME
    when(lambda: trainers(folder), lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert main(words(tmp_path, "--trials", "2", "--pruner", "none", tiny=LONG)) == 130
    error = capsys.readouterr().err
    assert "resume with: python -m cifar_fast sweep sprint" in error and "Traceback" not in error
    states = [t["state"] for t in json.loads((folder / "sweep.json").read_text())["trials"]]
    assert "waiting" in states and "running" not in states and not living(folder)
    assert main(["sweep", "sprint", "data=digits", f"exports={tmp_path}", "--resume"]) == 0
    found = figures(folder)
    assert (found["complete"], found["lost"], found["stuck"], found["double"]) == (2, 0, 0, 0)
    assert found["workers died"] == 0 and found["resumed"] == 1


def test_a_bad_trial_says_why_and_the_others_go_on(tmp_path, capsys, digits):
    # A rate at which the loss diverges, and one that trains.
    assert main(["sweep", "sprint", *TINY, "opt=sgd", f"exports={tmp_path}", "lr=1e9,0.05"]) == 0
    trials = json.loads((tmp_path / "sweeps" / NAME / "sweep.json").read_text())["trials"]
    assert [t["state"] for t in trials] == ["diverged", "complete"] and "learning rate" in trials[0]["error"]
    assert "best trial" in (tmp_path / "sweeps" / NAME / "report.html").read_text()


@pytest.mark.parametrize("more, text", [
    (["valid=0"], "valid=0.1"), (["validate_on=test", "valid=0"], "by the test set"),
    (["--resume"], "leave out --resume"), (["--jobs", "0"], "--jobs 0"), (["--grace", "1"], "--grace 1"),
    (["bs=32,64", "lr=0.1,0.2", "--trials", "9"], "4 combinations"), (["keep=best", "--final"], "leave out --final"),
])
def test_bad_input(tmp_path, capsys, more, text):
    given = [] if any(m.startswith("lr=") for m in more) else SPACE[:1]
    given += [t for t in TINY if not any(m.partition("=")[0] == t.partition("=")[0] for m in more)]
    assert main(["sweep", "sprint", *given, f"exports={tmp_path}", *more]) == 2
    assert text in capsys.readouterr().err and not (tmp_path / "sweeps").exists()


def test_trials_of_another_storage_are_not_taken_for_this_sweeps(swept, capsys, postgres_url):
    assert main(words(swept, "--trials", "6", "--pruner", "none", "--storage", postgres_url)) == 2
    assert "holds the trials of another sweep" in capsys.readouterr().err


def test_other_settings_under_the_same_name_are_refused(swept, capsys):
    assert main(words(swept, "--trials", "6", "--sampler", "random")) == 2
    assert "sampler: tpe then, random now" in capsys.readouterr().err


@pytest.mark.parametrize("more, text", [
    (["epochs=60"], "epochs=60: the sweep"), (["--sampler", "random"], "--sampler random"),
    (["--pruner", "hyperband"], "--pruner hyperband")])
def test_a_resumed_sweep_keeps_its_settings(swept, capsys, more, text):
    assert main(["sweep", "sprint", "data=digits", f"exports={swept}", "--resume", "--trials", "9", *more]) == 2
    assert figures(swept / "sweeps" / NAME)["complete"] == 6 and trials_of(swept) == 6  # none was added
    err = capsys.readouterr().err
    assert text in err and "goes on with its own settings" in err and f"name={NAME}-b" in err


def test_a_sweep_does_not_go_on_with_an_edited_recipe(swept, capsys, monkeypatch):
    def edited(name, load=load_recipe):
        return replace(load(name), clip=3.0)
    monkeypatch.setattr("cifar_fast.sweep.run.load_recipe", edited)
    shown = ["sweep", "sprint", "data=digits", f"exports={swept}", "--resume"]
    assert main([*shown, "--trials", "7"]) == 2 and trials_of(swept) == 6
    assert "the recipe sprint has changed since" in capsys.readouterr().err
    assert main(shown) == 0  # it has ended, and is only shown


@pytest.fixture
def untrained(monkeypatch):
    "Sweeps are set up or refused, and none of their trials is trained."
    for name in ("work_off", "report", "result_text"):
        monkeypatch.setattr(f"cifar_fast.sweep.run.{name}", lambda *args: None)


def test_a_grid_that_is_enlarged_goes_on_with_its_combinations(tmp_path, capsys, untrained):
    given = ["sweep", "sprint", "data=digits", f"exports={tmp_path}"]
    assert main([*given, "valid=0.2", "opt=sgd,muon", "bs=64,128,256", "--trials", "4"]) == 0
    assert main([*given, "--resume", "--trials", "9"]) == 2 and "6 combinations" in capsys.readouterr().err
    assert main([*given, "--resume", "--trials", "6"]) == 0
    study = Sweep(NAME, tmp_path / "sweeps" / NAME)
    study.create_or_join(None, None)
    assert [tuple(t.system_attrs["fixed_params"].values()) for t in study.trials()] == list(
        product(["sgd", "muon"], ["64", "128", "256"]))


def folder_of_images(path):
    "Of two classes, with a validation split of its own."
    for split, label, i in product(["train", "valid"], [0, 1], range(8)):
        place = path / split / "ab"[label] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * i + label, 99 * label, split == "valid")).save(place)
    return path


def test_a_validation_split_of_the_data_is_held_out_enough(tmp_path, untrained):
    images = folder_of_images(tmp_path / "grow")
    assert main(["sweep", "sprint", f"data={images}", f"exports={tmp_path}", "lr=0.01,0.05"]) == 0


def test_a_sweep_does_not_go_on_with_other_images(tmp_path, capsys, untrained):
    images = folder_of_images(tmp_path / "grow")
    resumed = ["sweep", "sprint", f"data={images}", f"exports={tmp_path}", "name=s", "--resume"]
    given = [*resumed[:-1], "lr=0.01,0.05"]
    assert main(given) == 0
    Image.new("RGB", (32, 32), "red").save(images / "train" / "a" / "more.png")
    for words in (given, resumed):
        assert main(words) == 2
        assert "images have changed" in (err := capsys.readouterr().err) and "name=s-b" in err
    sweep = Sweep("s", tmp_path / "sweeps" / "s")
    sweep.create_or_join(None, None)
    trial = sweep.claim("elsewhere/x", make_sampler("random", 1), make_pruner("none", 1))
    with pytest.raises(SweepError, match="images have changed"):
        worker.run_trial(sweep, trial, "elsewhere/x", "sprint", SimpleNamespace(fixed=(f"data={images}",), texts={}))
    assert sweep.trials()[0].state.name == "WAITING"  # it was given back
    sweep.study.set_user_attr("images", None)  # as of an older one
    assert main(resumed) == 0


def test_seeds_on_other_images_are_not_counted(tmp_path, capsys, monkeypatch):
    images, loaded = folder_of_images(tmp_path / "grow"), []

    def load(*args, **kwargs):
        loaded.append(load_source(*args, **kwargs))
        return loaded[-1]

    def card(data, seed=42):
        found = load_source(data, size=32, seed=seed)
        return SimpleNamespace(recipe={"data": str(data), "seed": seed}, data=SimpleNamespace(
            fingerprint=found.fingerprint))

    monkeypatch.setattr(seeds, "load_source", load)
    cards = {tmp_path / f"sprint-grow-{seed}": card(images) for seed in range(42, 47)}
    seeds.require_same_images(cards, "sprint-grow")
    assert len(loaded) == 2
    # Without a test set it is split by the seed.
    seeds.require_same_images({seed: card(images / "train", seed) for seed in range(3)}, "sprint-grow")
    Image.new("RGB", (32, 32), "red").save(images / "train" / "a" / "more.png")
    monkeypatch.setattr(seeds, "same_as_finished", lambda path, *_: path.name == "sprint-grow-42")
    monkeypatch.setattr(seeds, "read_card", cards.get)
    monkeypatch.setattr(seeds, "run_pool", lambda *_: pytest.fail("a seed was trained"))
    assert main(["recipe", "sprint", f"data={images}", f"exports={tmp_path}", "seeds=42,43"]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'sprint-grow-42'}: trained on other images" in err and "name=sprint-grow-b" in err


def trials_of(exports):
    study = Sweep(NAME, exports / "sweeps" / NAME)
    study.create_or_join(None, None)
    return len(study.trials())


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


def test_seeds_are_one_row(tmp_path, capsys, digits):
    given = ["recipe", "sprint", *LONG, "valid=0", "report=no", f"exports={tmp_path}", "seeds=3"]
    given.remove("valid=1100")
    folder = tmp_path / f".{NAME}-42.running"
    when(lambda: (folder / "checkpoint.pt").exists() and worker_of(tmp_path), lambda pid: os.kill(pid, signal.SIGKILL))
    assert main([*given, "--jobs", "2"]) == 0
    out = capsys.readouterr()
    cards = [read_card(tmp_path / f"{NAME}-{seed}") for seed in (42, 43, 44)]
    accuracies = pd.Series([c.metrics.accuracy for c in cards])
    assert f"test accuracy {accuracies.mean():.2%} ± {100 * accuracies.std():.2f}" in out.out and "n = 3" in out.out
    assert "a worker died (SIGKILL)" in out.err and cards[0].resumed == 1
    line = summarize(read(tmp_path / OWN), {}).iloc[0]
    assert (line["recipe"], line["n"], len(read(tmp_path / OWN))) == (NAME, 3, 3)
    assert line["accuracy_low"] < accuracies.mean() < line["accuracy_high"]
    assert accuracies.mean() - line["accuracy_low"] == pytest.approx(4.302653 * accuracies.std() / 3**0.5)
    assert main([*given[:-1], "seeds=42,43"]) == 0 and "n = 2" in capsys.readouterr().out  # nothing is trained anew
    assert main(["results", str(tmp_path)]) == 0 and "95 % interval of the mean" in capsys.readouterr().out


def test_a_seed_that_another_worker_began_and_died_of_is_resumed(tmp_path, monkeypatch):
    asked = []

    def train(own, resume, **more):
        asked.append(resume)
        if resume is None:  # both looked before either had begun
            RunFolder(tmp_path / own.name).working.mkdir()
            raise Interrupted("stopped after epoch 1")

    monkeypatch.setattr(seeds, "train", train)
    monkeypatch.setattr(seeds, "IDLE", 0)
    monkeypatch.setattr(seeds, "is_done", lambda *_: True in asked)
    assert seeds.work("sprint", (f"exports={tmp_path}", "data=digits"), (42,), tmp_path, False) == 0
    assert asked == [None, True]


def worker_of(exports):
    "The process that trains seed 42: the one that holds its log open."
    log = exports / "sweeps" / f"{NAME}-seeds" / "logs" / "seed-42.log"
    for fd in os.listdir("/proc"):
        if fd.isdigit() and int(fd) != os.getpid():
            try:
                if os.readlink(f"/proc/{fd}/fd/1") == str(log):
                    return int(fd)
            except OSError:
                pass
    return None


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


@pytest.mark.parametrize("text", ["0", "1", "1,1", "x", "3,a", "-2", "99999"])
def test_bad_seeds(capsys, text):
    assert main(["recipe", "sprint", "data=digits", f"seeds={text}"]) == 2
    assert f"seeds={text}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("where, jobs", [("sqlite", [3]), ("postgresql", [2, 1])])
def test_24_trials_10_kills(tmp_path, where, jobs):
    if where == "sqlite":
        found = faulted(tmp_path, 24, 10, jobs)
    elif postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    else:
        with postgres() as url:
            found = faulted(tmp_path, 24, 10, jobs, url)
    assert (found["trials"], found["kills"], found["state"]) == (24, 10, "finished")
    assert (found["complete"] + found["pruned"], found["lost"], found["stuck"], found["double"]) == (24, 0, 0, 0)
