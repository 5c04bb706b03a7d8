"""The command line as a user meets it: help, slips of the finger, a narrow terminal, completion in the shell."""

import os
import shutil
import subprocess
import sys
import warnings

import pytest

from cifar_fast.cli import COMMANDS
from cifar_fast.cli.main import main
from cifar_fast.cli.parser import SHELLS, completion_script, parse
from cifar_fast.utils.log import log_progress


def told(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    return stopped.value.code, *capsys.readouterr()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_has_examples_that_parse(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = told(capsys, *filter(None, [command, "--help"]))
    assert code == 0 and "examples:" in out
    # A path of a completion script is as long as it is.
    assert [line for line in out.splitlines() if len(line) > 80 and "completions" not in line] == []


@pytest.mark.parametrize("line", [line for c in COMMANDS.values() for line in c.examples])
def test_every_example_is_understood(line):
    import shlex

    words = shlex.split(line)
    words = words[:words.index(">")] if ">" in words else words
    args = parse(words, COMMANDS)
    assert args.run is COMMANDS[words[0]].run


def test_every_command_has_examples():
    assert all(c.examples and all(line.split()[0] == name for line in c.examples) for name, c in COMMANDS.items())


@pytest.mark.parametrize("typed, meant", [
    (["recipee", "final"], "recipe"), (["evalute", "x"], "evaluate"), (["recipe", "final", "--resme"], "--resume"),
    (["predict", "x", "y", "--topp", "3"], "--topk"), (["recipe", "final", "--log", "jsn"], "json"),
    (["completion", "bsh"], "bash"), (["--versoin"], "--version")])
def test_what_may_have_been_meant(capsys, typed, meant):
    code, _, err = told(capsys, *typed)
    assert code == 2 and f"did you mean {meant}?" in err


@pytest.mark.parametrize("typed, hint", [(["--data", "x"], "data=VALUE"), (["--mix.cutmix=0.5"], "mix.cutmix=VALUE")])
def test_a_setting_with_dashes_is_shown_without(capsys, typed, hint):
    code, _, err = told(capsys, "recipe", "final", *typed)
    assert code == 2 and f"(settings are typed without dashes: {hint})" in err


def test_only_what_is_required_is_called_so(capsys):
    code, _, err = told(capsys, "recipe")
    assert code == 2 and err.endswith("the following arguments are required: NAME\n")


@pytest.mark.parametrize("argv, code", [(["completion", "bash", "-q"], 0), (["evaluate", "no such run", "-q"], 2)])
def test_a_quiet_command_leaves_the_next_one_its_words(capsys, argv, code):
    "Two commands may share a process, as in a notebook."
    shown, filters = warnings.showwarning, list(warnings.filters)
    assert main(argv) == code
    capsys.readouterr()
    assert (warnings.showwarning, list(warnings.filters)) == (shown, filters)
    log_progress("still here")
    assert capsys.readouterr().err == "still here\n"


def test_the_version(capsys):
    from cifar_fast import __version__

    assert told(capsys, "--version") == (0, f"cifar_fast {__version__}\n", "")


@pytest.mark.parametrize("command, words", [
    (["recipe", "final", "--jobs", "2"], "--jobs 2 goes with seeds="),
    (["evaluate", "exports/final", "--seed", "5"], "--seed 5 goes with --corruptions"),
    (["calibrate", "exports/final", "data=photos", "--undo"], "leave out data=photos"),
    (["figures", "nowhere", "--recipe", "none.py"], "none.py"),
])
def test_options_without_effect_are_refused(capsys, command, words):
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_no_command_prints_help(capsys):
    assert main([]) == 2 and "commands:" in capsys.readouterr().out


def test_recipes_fit_a_narrow_terminal_and_a_pipe_keeps_them_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipes"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    assert main(["recipes"]) == 0
    assert any(line.startswith("final ") and line.endswith("EMA.") for line in capsys.readouterr().out.splitlines())


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize("words, offered", [
    (["rec"], {"recipe", "recipes"}), (["recipe", "s"], {"sprint", "strided"}), (["recipe", "final", "--re"],
                                                                                {"--resume", "--restart"}),
    (["report", "pyp"], {"pyproject.toml"})])  # a run is a path
def test_bash_completes(tmp_path, words, offered):
    script = tmp_path / "completion.sh"
    script.write_text(completion_script(COMMANDS, "bash"))
    asked = f"COMP_WORDS=(cifar_fast {' '.join(words)}); COMP_CWORD={len(words)}"
    found = subprocess.run(["bash", "-c", f"source {script}; {asked}; _shtab_cifar_fast; echo ${{COMPREPLY[@]}}"],
                           capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "recipe" in capsys.readouterr().out


@pytest.mark.parametrize("users, set_to", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_while_they_wait_unless_the_user_says_so(users, set_to):
    "Set before torch, whose libgomp reads it once."
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (
        {"OMP_WAIT_POLICY": users} if users else {})
    code = ("import sys, os, cifar_fast; assert 'torch' not in sys.modules; import torch; "
            "print(os.environ['OMP_WAIT_POLICY'])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.strip() == set_to
