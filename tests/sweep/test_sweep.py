"""Whole sweeps on digits: killed workers, Ctrl-C, the winner; what is refused and what goes on."""

import json
import os
import signal
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
from faults import LONG, NAME, SPACE, TINY, faulted, figures, living, postgres, postgres_programs, trainers
from PIL import Image
from sweeping import folder_of_images, when

from cifar_fast.cli.main import main
from cifar_fast.data.sources import may_have_valid
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import load_recipe
from cifar_fast.sweep import worker
from cifar_fast.sweep.pruners import make_pruner
from cifar_fast.sweep.run import final
from cifar_fast.sweep.study import Definition, Sweep, SweepError, make_sampler


def words(exports, *more, tiny=TINY):
    return ["sweep", "sprint", *SPACE, *tiny, f"exports={exports}", *more]


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
    (["keep=last,best", "--final"], "keep=best: keep=best needs"),
    (["procs=2"], "procs=2: a trial trains in one process"), (["procs=auto"], "procs=auto: a trial"),
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


def test_a_validation_split_of_the_data_is_held_out_enough(tmp_path, untrained):
    images = folder_of_images(tmp_path / "grow")
    assert main(["sweep", "sprint", f"data={images}", f"exports={tmp_path}", "lr=0.01,0.05"]) == 0


@pytest.mark.parametrize("data", ["digits", "cifar100"])
def test_without_held_out_images_it_is_refused_before_a_download(data, tmp_path, capsys, monkeypatch, untrained):
    monkeypatch.setattr("cifar_fast.sweep.run.images_of", lambda recipe: pytest.fail("the images were asked for"))
    assert main(["sweep", "sprint", f"data={data}", f"exports={tmp_path}", "lr=0.01,0.05"]) == 2
    err = capsys.readouterr().err.replace(f"exports={tmp_path} ", "")
    assert f"sweep sprint data={data} lr=0.01,0.05 valid=0.1" in err


def test_named_datasets_say_which_have_a_validation_split(monkeypatch, tmp_path):
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    assert may_have_valid("dtd") and not may_have_valid("cifar100") and not may_have_valid("cifar10")
    monkeypatch.setenv("CIFAR_FAST_DATA", str(folder_of_images(tmp_path / "grow")))  # with a folder valid
    assert may_have_valid("cifar10") and may_have_valid("hf:owner/name")


def test_what_final_could_not_train_is_refused_once_the_images_are_known(tmp_path, capsys, untrained):
    "A folder may have a validation split of its own, with which keep=best would work."
    images = folder_of_images(tmp_path / "grow")
    given = ["sweep", "sprint", f"exports={tmp_path}", "lr=0.01,0.05", "keep=best", "--final"]
    (tmp_path / "own").mkdir()
    for name in "ab":
        (images / "train" / name).rename(tmp_path / "own" / name)
    assert main([*given, f"data={tmp_path / 'own'}", "valid=0.2"]) == 2
    assert "keep=best needs validation accuracy" in capsys.readouterr().err and not (tmp_path / "sweeps").exists()


def test_a_former_winner_is_not_replaced_and_the_command_that_does_is_named(swept, capsys):
    definition = Definition("sprint", "", ("data=digits", "epochs=1"), {}, "tpe", "none", 42)
    better = SimpleNamespace(name=NAME, best=SimpleNamespace(params={"lr": 0.123}))
    (swept / f"{NAME}-best").mkdir(exist_ok=True)
    with pytest.raises(SweepError, match=f"another run.*recipe sprint .*lr=0.123 .*name={NAME}-best.*--overwrite"):
        final(definition, better, [f"exports={swept}"])


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


def trials_of(exports):
    study = Sweep(NAME, exports / "sweeps" / NAME)
    study.create_or_join(None, None)
    return len(study.trials())


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
