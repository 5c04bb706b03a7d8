"""What is said where a command cannot do what was asked: by name, with the next step and an exit code."""

import errno
from pathlib import Path

import pytest

from cifar_fast.cli.main import main
from cifar_fast.utils.errors import CifarFastError, file_error

RESULTS = Path(__file__).parents[2] / "exports" / "results.csv"


@pytest.mark.parametrize("args, named", [
    (["recipe", "finale"], "did you mean final"),
    (["recipe", "nowhere.py"], "copy final nowhere.py"),
    (["recipe", "final", "epoch=3"], "did you mean epochs"),
    (["recipe", "final", "epochs=three"], "whole number"),
    (["recipe", "final", "data=/no/such/folder"], "/no/such/folder"),
    (["recipe", "final", "data=digits", "arch=cifar_finale"], "cifar_final"),
    (["recipe", "final", "data=digits", "arch=resnet18"], "breaks the budget"),
    (["recipe", "final", "sched=plateau"], "fit=constant"),
    (["recipe", "final", "loss=focal"], "mix=none"),
    (["recipe", "final", "precision=fp16", "device=cpu"], "bf16 or fp32"),
    (["recipe", "final", "data=digits", "device=cuda:9"], "device=auto"),
    (["recipe", "final", "name=../x"], "plain name"),
    (["predict", "exports/nothing", "x.png"], "exports/nothing"),
    (["export", "nothing"], "recipe NAME"),
    (["evaluate", "exports/nothing"], "exports/nothing"),
    (["copy", "final", "mine.txt"], "ending in .py"),
    (["audit", "cifar_finale"], "did you mean cifar_final"),
    (["recipe", "final", "data=digits", "arch=resnet81"], "did you mean resnet18"),
    (["copy", "final", "nowhere/mine.py"], "nowhere/mine.py: No such file or directory; check the name"),
    (["results", str(RESULTS), "--readme", "nowhere.md"], "nowhere.md: No such file or directory; check the name"),
    (["results", "nowhere.csv", "--readme", "nowhere.md"], "there is no nowhere.csv; check its name"),
    (["copy", "final", "no\x1b[2J\nwhere/mine.py"], "no\\x1b[2J\\nwhere/mine.py: No such file"),
    (["trust", str(Path(__file__))], "is no .pkl"),
    (["lr_find", "final", "--steps", "99"], "--steps 99: a search takes at least 100"),
    (["lr_find", "final", "--start", "5", "--end", "1"], "--start 5 --end 1"),
    (["lr_find", "final", "--start", "nan"], "--start nan"),
    (["lr_find", "final", "--end", "inf"], "finite"),
    (["results"], "python -m cifar_fast recipe final"),
    (["results", "elsewhere", "--curves"], "recipe netv2"),
    (["recipe", "data=digits"], "the recipe comes first, as in: recipe final data=digits"),
    (["recipe", "sprint", "data=digits", "augment=none"], "copy sprint mine.py"),
    (["recipe", "final", "lr=0,05"], "did you mean lr=0.05?"),
    (["recipe", "final", "data=./no/mushrooms"], "data=./no/mushrooms: there is no such folder or file, nor "),
    (["recipe", "final", "data=owner/photos"], "owner; a dataset of the Hugging Face Hub is data=hf:owner/photos"),
    (["recipe", "sprint", "mix.cutmix=0.2"], "choose a function first, as in mix=mixing mix.cutmix=0.2"),
    (["recipe", "final", "sched.gamma=0.2"], "as in sched=step sched.gamma=0.2"),
    (["sweep", "final", "data=digits", "valid=200", "lr=0.01..0.1:log", "mix.cutmx=0.2..0.8"], "mix takes no 'cutmx'"),
    (["recipe", "digits", "name="], "plain name"),
    (["recipe", "digits", "name=.."], "plain name"),
    (["recipe", "digits", "name=results.csv"], "name=results.csv"),
])
def test_bad_input_is_refused_with_the_next_step(args, named, capsys, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    err = capsys.readouterr().err
    assert named in err.splitlines()[-1] and err.count("cifar_fast: ") == 1 and "Traceback" not in err, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error, said", [
    (FileNotFoundError(errno.ENOENT, "No such file", "a\nb"), "a\\nb: No such file; check the name"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "x/.out.1.part", None, "x/out"), "x/out: Is a directory; name"),
    (OSError(errno.EIO, "Input/output error", b"disk"), "disk: Input/output error")])
def test_an_error_of_the_system_names_the_file_and_the_next_step(error, said):
    message = str(file_error(error))
    assert message.startswith(said) and "\n" not in message


class Odd(CifarFastError):
    exit_code = 7


@pytest.mark.parametrize("more", [[], ["-v"]])
def test_exit_code_and_message_of_an_error_are_its_own(monkeypatch, capsys, more):
    monkeypatch.setattr("cifar_fast.recipe.list_recipes", lambda: (_ for _ in ()).throw(Odd("odd x.py; do this")))
    assert main(["recipes", *more]) == 7
    err = capsys.readouterr().err
    assert err.endswith("cifar_fast: odd x.py; do this\n") and ("Traceback" in err) is bool(more)


@pytest.mark.parametrize("bug", [ValueError("of ours"), OSError("names no file"), KeyError("x"), RuntimeError("y")])
def test_any_other_exception_is_a_bug_and_shows_itself(monkeypatch, bug):
    monkeypatch.setattr("cifar_fast.recipe.list_recipes", lambda: (_ for _ in ()).throw(bug))
    with pytest.raises(type(bug)) as raised:
        main(["recipes"])
    assert raised.value is bug


@pytest.mark.parametrize("command", [["predict"], ["evaluate"]])
def test_a_file_that_cannot_be_opened_is_not_said_to_be_missing(command, tmp_path, capsys):
    page = tmp_path / "final.html"
    page.write_text("<!doctype html>")
    assert main([*command, str(page), *(["x.png"] if command == ["predict"] else [])]) == 2
    said = capsys.readouterr().err
    assert f"{page} cannot be opened here" in said and ".tflite" in said and said.count("\n") == 1
