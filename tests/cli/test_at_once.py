"""What a command says at once, without importing torch: lists, help, slips; and where its output cannot go."""

import os
import re
import subprocess
import sys

import pytest
from fresh import fresh

from cifar_fast.cli.main import main


def test_recipes_lists_all_without_importing_torch():
    done = fresh("-X", "importtime", "-m", "cifar_fast", "recipes")
    assert done.returncode == 0
    assert all(f"{name} " in done.stdout for name in ("final", "sprint", "netv2", "net", "strided", "mobile"))
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "fastai", "numpy", "pandas"}


def test_recipes_lists_the_datasets_and_what_the_cache_holds(digits, cache, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # a line a dataset, whatever the terminal of the tests
    archive = cache / "data" / "torchvision" / "SVHN"
    archive.mkdir(parents=True)
    try:
        assert main(["recipes"]) == 0
    finally:
        archive.rmdir()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.split("data=DATASET")[1].splitlines() if line}
    # Other tests may have decoded it at other sizes too.
    assert re.search(r"\(decoded at .*\b32\b.* pixels\)", lines["digits"])
    assert "(downloaded)" in lines["svhn"]
    assert "101 classes" in lines["food101"] and "(" not in lines["food101"]


@pytest.mark.parametrize("words, said", [
    ("recipe finale", "did you mean final"), ("lr_find finale", "did you mean final"),
    ("copy finale x.py", "did you mean final"), ("sweep finale lr=0.01,0.1", "did you mean final"),
    ("recipe final epoch=3", "did you mean epochs"), ("recipe final epochs=0", "epochs=0: expected a whole number"),
    ("recipe final procs=-1", "procs=-1: expected the number of processes"), ("recipe final seeds=0", "2 to 1,000"),
    ("recipe final distill.alpha=2", "distill.alpha=2.0: expected a number above 0 and at most 1"),
    ("lr_find final valid=1.5", "valid=1.5: expected a fraction"), ("sweep final lr=0.01,0.1 bs=0", "bs=0: expected"),
    ("export nothing --to onnx", "no run exports/nothing"), ("export exports/final --to onxx", "did you mean onnx"),
])
def test_a_slip_is_answered_without_importing_torch(words, said):
    done = fresh("-X", "importtime", "-m", "cifar_fast", *words.split())
    assert done.returncode == 2 and said in done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "fastai"}


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is full")
def test_output_that_cannot_be_written_is_told():
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        found = subprocess.run([sys.executable, "-m", "cifar_fast", "recipes"], stdout=full, stderr=subprocess.PIPE,
                               text=True, env=buffered)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "the output cannot be written (No space left on device)" in found.stderr
    read, write = os.pipe()
    os.close(read)
    found = subprocess.run([sys.executable, "-m", "cifar_fast", "recipes"], stdout=write, stderr=subprocess.PIPE,
                           text=True, env=buffered)
    os.close(write)
    assert (found.returncode, found.stderr) == (141, "")
