"""A run that stops, wherever it does, goes on to the very same weights and history; what differs is told."""

import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from breaking import at, resume
from kills import NAME, RUN, bytes_that_differ, harness, history, strays, weights

from cifar_fast import runs, train
from cifar_fast.callbacks import checkpoint, schedule
from cifar_fast.callbacks.checkpoint import Checkpoint, CheckpointError, load, rng_state, set_rng_state
from cifar_fast.cli import main
from cifar_fast.optimizers import sgd
from cifar_fast.prepare import prepare
from cifar_fast.recipe import load_recipe
from cifar_fast.runs import RunError, RunFolder, differences

STEPS = 8  # an epoch of RUN


class Broken(BaseException):
    "What breaks a run off, as nothing in it expects."


@pytest.fixture
def broken(tmp_path, monkeypatch, digits):
    "Breaks a run off after so many checkpoints, one a step and one an epoch; returns its exports."
    def run(saves, *changes):
        save, made = Checkpoint.save, []

        def breaking(self, epoch, batch):
            save(self, epoch, batch)
            made.append((epoch, batch))
            if len(made) == saves:
                raise Broken

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", breaking)
            with pytest.raises(Broken):
                main([*RUN, f"exports={tmp_path}", *changes])
        return tmp_path
    return run


@pytest.mark.parametrize("saves, where", [
    (5, "in epoch 1, after 5 batches of 2"), (STEPS, "in epoch 1, after 8 batches"),
    (STEPS + 1, "after epoch 1 of 2"), (2 * STEPS, "in epoch 2, after 7 batches"),
    (2 * STEPS + 2, "after its last epoch")])
def test_it_goes_on_to_the_same_weights_and_history(plain, broken, capsys, saves, where):
    exports = broken(saves)
    assert "go on with: python -m cifar_fast recipe final data=digits" in capsys.readouterr().err
    assert resume(exports) == 0
    assert f"goes on {where}" in capsys.readouterr().out
    assert bytes_that_differ(weights(plain), weights(exports)) == 0
    assert history(exports).equals(history(plain))
    assert len(pd.read_csv(exports / "results.csv")) == 1 and not strays(exports)


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


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_end_and_saves(plain, tmp_path, monkeypatch, capsys, signum, code):
    before = signal.getsignal(signum)
    at(monkeypatch, 5, lambda: os.kill(os.getpid(), signum))
    assert main([*RUN, "checkpoint_minutes=0", f"exports={tmp_path}"]) == code
    assert signal.getsignal(signum) is before
    err = capsys.readouterr().err
    assert "finishing the step" in err and "--resume" in err
    monkeypatch.undo()
    assert load(tmp_path / NAME / "running" / "checkpoint.pt")["position"] == (0, 5)
    assert resume(tmp_path, "checkpoint_minutes=0") == 0
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch, digits):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at(monkeypatch, 5, twice)
    assert main([*RUN, "checkpoint_minutes=0", f"exports={tmp_path}"]) == 130
    assert not (tmp_path / NAME / "running" / "checkpoint.pt").exists()


# ---------------------------------------------------------------- what is asked and refused


def test_the_same_command_again_offers_to_go_on(broken, capsys):
    exports = broken(5)
    kept = (exports / NAME / "running" / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main([*RUN, f"exports={exports}"]) == 2
    err = capsys.readouterr().err
    assert "stopped in epoch 1" in err and "--resume" in err and "--restart" in err
    assert (exports / NAME / "running" / "checkpoint.pt").read_bytes() == kept


@pytest.mark.parametrize("answer, code", [("", 0), ("n", 2), (EOFError, 2)])
def test_on_a_terminal_it_asks(plain, broken, monkeypatch, capsys, answer, code):
    exports = broken(5)
    capsys.readouterr()

    def asked(prompt):
        if answer is EOFError:
            raise EOFError
        return answer
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", asked)
    assert main([*RUN, f"exports={exports}"]) == code
    assert capsys.readouterr().err.count("is kept in") == 1
    assert (exports / f"{NAME}.json").exists() == (code == 0)


def test_what_was_typed_for_the_run_need_not_be_typed_again(broken, plain):
    exports = broken(5)
    assert main(["recipe", "final", "data=digits", f"exports={exports}", "--resume"]) == 0
    assert bytes_that_differ(weights(plain), weights(exports)) == 0


def test_restart_throws_the_stopped_run_away(broken, capsys):
    exports = broken(5)
    assert main([*RUN, f"exports={exports}", "--restart", "epochs=1"]) == 0
    assert "goes on" not in capsys.readouterr().out and not strays(exports)


def test_nothing_to_resume(tmp_path, capsys, digits):
    assert resume(tmp_path) == 2
    assert "leave out --resume" in capsys.readouterr().err


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(plain, tmp_path, capsys):
    (tmp_path / NAME / "running").mkdir(parents=True)
    assert resume(tmp_path) == 0
    assert "begins anew" in capsys.readouterr().out
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


def test_a_changed_recipe_is_refused_or_allowed_by_name(broken, capsys):
    exports = broken(5)
    assert resume(exports, "lr=0.01") == 2
    err = capsys.readouterr().err
    assert "recipe.lr: 0.05 then, 0.01 now" in err and "--allow-changes" in err
    assert resume(exports, "lr=0.01", "--allow-changes") == 0
    assert "recipe.lr: 0.05 then, 0.01 now" in capsys.readouterr().out


def test_a_changed_rate_holds_where_nothing_sets_it_anew(broken):
    "The saved optimizer and scheduler hold the old one."
    exports = broken(5, "fit=flat")
    assert resume(exports, "lr=0.001", "--allow-changes") == 0
    assert list(history(exports)["lr"]) == [0.001, 0.001]
    assert pd.read_csv(exports / "results.csv")["settings"].str.contains("lr=0.001").all()


@pytest.mark.parametrize("then, now, begins", [
    ([], ["patience=2"], "patience"), (["select=last"], ["select=best"], "keep_best"),
    (["fit=flat"], ["sched=step"], None), (["fit=flat", "sched=step"], ["sched=cosine"], None),
    (["ema=none"], ["ema=ema"], "ema"), ([], ["ema=none"], None), ([], ["bs=64"], None), ([], ["epochs=3"], None)])
def test_a_part_that_the_run_had_not_begins_where_it_goes_on(broken, capsys, then, now, begins):
    exports = broken(5, *then)
    capsys.readouterr()
    code, (out, err) = resume(exports, *now, "--allow-changes"), capsys.readouterr()
    assert code == 0, err
    assert "goes on in epoch 1, after 5 batches" in out
    assert begins is None or f"{begins} begins here: the run had none" in out


def test_another_optimizer_cannot_take_over(broken, capsys):
    exports = broken(5)
    assert resume(exports, "opt=adamw", "lr=0.001", "--allow-changes") == 2
    assert "optimises with muon, whose state adamw cannot take over: --restart" in capsys.readouterr().err


def test_an_edited_function_of_a_recipe_file_is_told(tmp_path, monkeypatch, capsys, digits):
    mine = tmp_path / "mine.py"
    text = Path("recipes/mobile.py").read_text().replace("\nrecipe =", '''
def own_loss(*, smoothing: float = 0.1):
    return cross_entropy(label_smoothing=smoothing)

recipe =''').replace("partial(cross_entropy)", "partial(own_loss)")
    mine.write_text(text)
    typed = ["recipe", str(mine), "data=digits", "epochs=2", "bs=512", "tta=0", "report=no",
             f"exports={tmp_path / 'exports'}"]
    save = Checkpoint.save

    def breaking(self, *where):
        save(self, *where)
        raise Broken

    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(Checkpoint, "save", breaking)
        main(typed)
    mine.write_text(text.replace("smoothing: float = 0.1", "smoothing: float = 0.9"))
    capsys.readouterr()
    assert main([*typed, "--resume"]) == 2
    assert "code.mine.py" in capsys.readouterr().err
    mine.write_text(text)
    assert main([*typed, "--resume"]) == 0


def test_another_library_is_told(broken, monkeypatch, capsys):
    exports = broken(5)
    monkeypatch.setattr(runs, "versions", lambda: {**VERSIONS, "torch": "1.0"})
    assert resume(exports) == 2
    assert f"versions.torch: {VERSIONS['torch']} then, 1.0 now" in capsys.readouterr().err


def test_another_machine_is_told(broken, monkeypatch, capsys):
    exports = broken(5)
    monkeypatch.setattr(train, "machine", lambda run: {"device": "cuda", "threads": 1})
    assert resume(exports) == 2
    assert "machine.device: cpu" in capsys.readouterr().err


def test_other_pictures_are_told(broken, monkeypatch, capsys):
    exports = broken(5)

    def prepared(recipe):
        run = prepare(recipe)
        return replace(run, source=replace(run.source, fingerprint="other"))

    monkeypatch.setattr(train, "prepare", prepared)
    assert resume(exports) == 2
    assert ", other now" in capsys.readouterr().err


OWN = """
from cifar_fast.all import *

class Noise(A.ImageOnlyTransform):
    def apply(self, img, **params):
        return img // {}

def rate(*, scale):
    return scale

recipe = Recipe(arch="cifar_sprint", epochs=1, augment=({},), opt=partial(muon, {}), fit=one_cycle, loss=cross_entropy)
"""


@pytest.mark.parametrize("augment, opt", [("Noise()", ""), ("A.OneOf([A.HorizontalFlip(), Noise()])", ""),
                                          ("A.HorizontalFlip()", "steps=partial(rate, scale=2)")])
def test_own_code_is_found_however_deep(tmp_path, augment, opt):
    found = []
    for divisor in (2, 3):
        (tmp_path / "mine.py").write_text(OWN.format(divisor, augment, opt))
        found.append(runs.own_code(load_recipe(str(tmp_path / "mine.py"))))
    assert set(found[0]) == set(found[1]) == {"mine.py"} and found[0] != found[1]
    assert runs.own_code(load_recipe("final")) == runs.own_code(load_recipe("mobile")) == {}


VERSIONS = runs.versions()


@pytest.mark.parametrize("changed, told", [
    ({"data": "b"}, ["data: a then, b now"]),
    ({"machine": {"threads": 2}}, ["machine.threads: 1 then, 2 now"]),
    ({"recipe": {"lr": 1, "ema": {"call": "x"}}}, ["recipe.ema: None then, not there now",
                                                   "recipe.ema.call: not there then, x now"]),
    ({"commit": None}, ["commit: c then, None now"]), ({"lr": 9}, [])])
def test_differences(changed, told):
    then = {"recipe": {"lr": 1, "ema": None}, "data": "a", "machine": {"threads": 1}, "versions": {}, "commit": "c",
            "lr": 3}
    assert differences(then, then | changed) == told


def test_another_run_of_the_name_is_told_and_neither_is_harmed(tmp_path, capsys, digits):
    with RunFolder(tmp_path / NAME) as folder:
        folder.begin(keep=False)
        (folder.working / "history.csv").write_text("mine")
        assert main([*RUN, f"exports={tmp_path}"]) == 2
        assert "another run of final-digits is working" in capsys.readouterr().err
        assert (folder.working / "history.csv").read_text() == "mine"
    with RunFolder(tmp_path / NAME):
        "It can be held again once it was released."


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    stray = [tmp_path / ".a.json.x1.part", tmp_path / "a" / ".history.csv.y2.part",
             tmp_path / "a" / "running" / ".checkpoint.pt.z.part"]
    others = [tmp_path / ".a-digits.json.x1.part", tmp_path / "a" / "history.csv", tmp_path / "a" / ".hidden"]
    for path in [*stray, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with RunFolder(tmp_path / "a"):
        assert not any(p.exists() for p in stray) and all(p.exists() for p in others)


class Payload:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["CIFAR_FAST_TEST_PAYLOAD"]),)


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
    path = exports / NAME / "running" / "checkpoint.pt"
    whole = load(path)
    assert {"format", *checkpoint.SAVED} == whole.keys()
    for key in checkpoint.SAVED:
        torch.save({k: v for k, v in whole.items() if k != key}, path)
        with pytest.raises(CheckpointError, match=rf"checkpoint\.pt is no whole checkpoint: it lacks {key}; --restart"):
            load(path)
    capsys.readouterr()
    assert resume(exports) == 2
    assert "is no whole checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("spoilt", [
    {"about": 5}, {"about": {}}, {"position": "ab"}, {"position": (0, -1)}, {"rng": {}}, {"optimizer": {}},
    {"model": {}}, {"recorder": 7}, {"callbacks": {"ema": None}}, {"epoch": None}])
def test_a_checkpoint_of_nonsense_is_named(broken, capsys, spoilt):
    exports = broken(3)
    path = exports / NAME / "running" / "checkpoint.pt"
    torch.save(load(path) | spoilt, path)
    capsys.readouterr()
    assert resume(exports) == 2
    err = capsys.readouterr().err
    assert "checkpoint.pt" in err and "--restart" in err and "Traceback" not in err


# ---------------------------------------------------------------- pieces of the state


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
    late.cb.learn.recorder.values = [[1 / 4], [1 / 8]]  # what Scheduled shows after an epoch
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
    torch.save({"sched": checkpoint.plain(first.cb.saved()), "opt": first.opt.state_dict()}, tmp_path / "x.pt")
    second, saved = Scheduled(name), torch.load(tmp_path / "x.pt", weights_only=True)
    second.opt.load_state_dict(saved["opt"])
    second.cb.restore(saved["sched"])
    second.done = 9
    second.steps(14)
    assert first.rates + second.rates == whole.rates and len(set(whole.rates)) > 2


class Scheduled:
    "A schedule over six epochs of four steps, alone with its optimizer; accuracy falls, so that a plateau acts."

    def __init__(self, name):
        self.cb, weight = getattr(schedule, name)(**SCHEDULES[name]), torch.nn.Parameter(torch.zeros(1))
        weight.grad = torch.zeros(1)
        self.opt = sgd([weight], lr=0.1)
        recorder = SimpleNamespace(metric_names=["epoch", "valid_accuracy"], values=[])
        self.cb.learn = SimpleNamespace(opt=self.opt, n_epoch=6, dls=SimpleNamespace(train=range(4)), training=True,
                                        recorder=recorder)
        self.cb.before_fit()
        self.rates, self.done = [], 0

    def steps(self, count):
        for _ in range(count):
            self.rates.append(self.opt.hypers[-1]["lr"])
            self.opt.step()
            self.cb.after_batch()
            self.done += 1
            if self.done % 4 == 0:
                self.cb.learn.recorder.values = [[1 / self.done]]
                self.cb.after_epoch()


def test_every_rng_goes_on():
    saved = rng_state()

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    first = draw()
    assert draw() != first
    set_rng_state(saved)
    assert draw() == first


def test_a_patient_run_counts_on(broken, capsys):
    "Waiting is remembered: the run stops where it would have, after the third epoch without a better one."
    lazy = ("epochs=9", "patience=3", "lr=1e-9", "ema=none")
    exports = broken(2 * (STEPS + 1), *lazy)
    assert resume(exports, *lazy) == 0
    assert len(history(exports)) == 4


def test_a_run_error_lists_no_traceback(tmp_path, capsys, digits):
    assert main([*RUN, f"exports={tmp_path}", "--allow-changes"]) == 2
    assert capsys.readouterr().err == "cifar_fast: --allow-changes belongs to --resume\n"
    assert issubclass(RunError, Exception)


def test_a_row_is_added_once_whatever_the_date(tmp_path):
    from cifar_fast.results.store import add

    table, row = tmp_path / "results.csv", {"recipe": "a", "seed": 1, "accuracy": None, "date": "2026-01-01"}
    add(row, table, tmp_path / "row.csv")
    add({**row, "date": "2026-01-02"}, table, tmp_path / "row.csv", once=True)
    assert len(pd.read_csv(table)) == 1
    add({**row, "seed": 2}, table, tmp_path / "row.csv", once=True)
    add(row, table, tmp_path / "row.csv")
    assert list(pd.read_csv(table)["seed"]) == [1, 2, 1]
