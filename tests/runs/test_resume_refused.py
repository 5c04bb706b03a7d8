"""What a run that stopped asks before it goes on, and what it refuses: each difference is told."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from breaking import Broken, resume
from kills import NAME, RUN, bytes_that_differ, history, strays, weights, working

from cifar_fast.cli.main import main
from cifar_fast.recipe import describe, load_recipe, override
from cifar_fast.runs import run as train
from cifar_fast.runs import run_dir as runs
from cifar_fast.runs.run_dir import RunError, RunFolder, differences
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.prepare import prepare


def test_the_same_command_again_offers_to_go_on(broken, capsys):
    exports = broken(5)
    kept = (working(exports) / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main([*RUN, f"exports={exports}"]) == 2
    err = capsys.readouterr().err
    assert "stopped in epoch 1" in err and "--resume" in err and "--restart" in err
    assert (working(exports) / "checkpoint.pt").read_bytes() == kept


@pytest.mark.parametrize("answer, code", [("", 0), ("n", 2), (EOFError, 2)])
def test_on_a_terminal_it_asks(plain, broken, monkeypatch, capsys, answer, code):
    exports = broken(5)
    capsys.readouterr()

    def asked():  # without a prompt, which would go to stdout
        if answer is EOFError:
            raise EOFError
        return answer
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", asked)
    assert main([*RUN, f"exports={exports}"]) == code
    out, err = capsys.readouterr()
    assert err.count("is kept in") == err.count("Resume it? [Y/n]") == 1 and "Resume it?" not in out
    assert (exports / NAME).exists() == (code == 0)


def test_what_was_typed_for_the_run_need_not_be_typed_again(broken, plain):
    exports = broken(5)
    assert main(["recipe", "final", "data=digits", f"exports={exports}", "--resume"]) == 0
    assert bytes_that_differ(weights(plain), weights(exports)) == 0


def test_restart_throws_the_stopped_run_away(broken, capsys):
    exports = broken(5)
    assert main([*RUN, f"exports={exports}", "--restart", "epochs=1"]) == 0
    assert "resumes" not in capsys.readouterr().out and not strays(exports)


def test_nothing_to_resume(tmp_path, capsys, digits):
    assert resume(tmp_path) == 2
    assert "leave out --resume" in capsys.readouterr().err


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(plain, tmp_path, capsys):
    (working(tmp_path) / "run").mkdir(parents=True)
    assert resume(tmp_path) == 0
    assert "starts from scratch" in capsys.readouterr().out
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0


def test_a_run_without_a_checkpoint_is_not_begun_anew_with_other_settings(tmp_path, capsys, digits):
    (working(tmp_path) / "run").mkdir(parents=True)
    started = override(load_recipe("final"), [*RUN[2:], f"exports={tmp_path}"])
    (working(tmp_path) / "run" / "recipe.json").write_text(json.dumps(describe(replace(started, lr=0.123))))
    assert resume(tmp_path) == 2
    err = capsys.readouterr().err
    assert "lr" in err and "0.123" in err and "--allow-changes" in err
    assert resume(tmp_path, "--allow-changes") == 0


def test_a_changed_recipe_is_refused_or_allowed_by_name(broken, capsys):
    exports = broken(5)
    assert resume(exports, "lr=0.01") == 2
    err = capsys.readouterr().err
    assert "recipe.lr: 0.05 then, 0.01 now" in err and "--allow-changes" in err
    assert resume(exports, "lr=0.01", "--allow-changes") == 0
    assert "recipe.lr: 0.05 then, 0.01 now" in capsys.readouterr().out


def test_a_changed_rate_holds_where_nothing_sets_it_anew(broken):
    "The saved optimizer and scheduler hold the old one."
    exports = broken(5, "fit=constant")
    assert resume(exports, "lr=0.001", "--allow-changes") == 0
    assert list(history(exports)["lr"]) == [0.001, 0.001]
    assert pd.read_csv(exports / "runs.csv")["settings"].str.contains("lr=0.001").all()


@pytest.mark.parametrize("then, now, begins", [
    ([], ["patience=2"], None), (["keep=last"], ["keep=best"], "keep_best"),
    (["fit=constant"], ["sched=step"], None), (["fit=constant", "sched=step"], ["sched=cosine"], None),
    (["ema=none"], ["ema=ema"], "ema"), ([], ["ema=none"], None), ([], ["bs=64"], None), ([], ["epochs=3"], None)])
def test_a_part_that_the_run_had_not_begins_where_it_goes_on(broken, capsys, then, now, begins):
    exports = broken(5, *then)
    capsys.readouterr()
    code, (out, err) = resume(exports, *now, "--allow-changes"), capsys.readouterr()
    assert code == 0, err
    assert "resumes in epoch 1 of 2, after 5 batches" in out
    assert begins is None or f"{begins} starts here: the run had none" in out


def test_a_schedule_of_each_batch_ends_where_it_should_with_other_batches(broken):
    exports = broken(5, "fit=constant", "sched=one_cycle_torch")
    assert resume(exports, "bs=64", "--allow-changes") == 0
    assert history(exports)["lr"].iloc[-1] < 1e-4 < history(exports)["lr"].max()


@pytest.mark.slow  # two more runs in full
def test_with_more_epochs_the_rest_of_an_epoch_is_where_it_would_be(broken, tmp_path):
    "The checkpoint says which fraction of the run is done: of the epochs that there were then."
    exports = broken(5)
    assert resume(exports, "epochs=4", "--allow-changes") == 0
    assert main([*RUN, "epochs=4", f"exports={tmp_path / 'whole'}"]) == 0
    assert list(history(exports)["lr"]) == pytest.approx(list(history(tmp_path / "whole")["lr"]))


def test_another_optimizer_cannot_take_over(broken, capsys):
    exports = broken(5)
    assert resume(exports, "opt=adamw", "lr=0.001", "--allow-changes") == 2
    assert "optimises with muon, whose state adamw cannot use: --restart" in capsys.readouterr().err


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


def test_other_images_are_told(broken, monkeypatch, capsys):
    exports = broken(5)

    def prepared(recipe, **given):
        run = prepare(recipe, **given)
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
        folder.start_run(keep=False)
        (folder.staged / "history.csv").write_text("mine")
        assert main([*RUN, f"name={NAME}", f"exports={tmp_path}"]) == 2
        # It is at work, whatever its settings: it has not stopped.
        assert f"another process is training {tmp_path / NAME}" in capsys.readouterr().err
        same = prepare(override(load_recipe("final"), RUN[2:]), typed=RUN[2:]).recipe
        (folder.staged / "recipe.json").write_text(json.dumps(describe(same)))
        assert main([*RUN, f"exports={tmp_path}"]) == 2
        assert f"another process is training {tmp_path / NAME}" in capsys.readouterr().err
        assert (folder.staged / "history.csv").read_text() == "mine"
        (folder.staged / "recipe.json").unlink()
    assert main([*RUN, f"name={NAME}", f"exports={tmp_path}"]) == 2
    assert f"other settings has stopped in {tmp_path / NAME}" in capsys.readouterr().err
    with RunFolder(tmp_path / NAME):
        "It can be held again once it was released."


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_of_others(tmp_path):
    "A name may begin with another one, and a dot."
    stray = [tmp_path / ".a.running" / "run" / ".history.csv.y2.part", tmp_path / ".a.discarded" / "checkpoint.pt",
             tmp_path / ".a.running" / ".checkpoint.pt.z.part"]
    others = [tmp_path / ".a.b.running" / "run" / ".x.y.part", tmp_path / ".a.b.discarded" / "x",
              tmp_path / ".a.json.x1.part", tmp_path / ".a-2.running" / ".checkpoint.pt.z.part",
              tmp_path / "a" / "history.csv", tmp_path / "a" / ".hidden"]
    for path in [*stray, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with RunFolder(tmp_path / "a"):
        assert not any(p.exists() for p in stray) and all(p.exists() for p in others)


def test_a_run_error_lists_no_traceback(tmp_path, capsys, digits):
    assert main([*RUN, f"exports={tmp_path}", "--allow-changes"]) == 2
    err = capsys.readouterr().err
    assert "--allow-changes" in err and "--resume" in err and err.count("\n") == 1
    assert issubclass(RunError, Exception)
