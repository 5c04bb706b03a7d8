"""Over two hundred odd and broken images given to the commands: good ones are predicted, bad ones named."""

import csv
import errno
import glob
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from odd_images import BAD, EITHER, GOOD, encoded, make, noise

from cifar_fast.cli.main import main
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.find_images import find_images
from cifar_fast.export.save import save_export
from cifar_fast.models import create_model
from cifar_fast.utils.text import encodable, printable

if not hasattr(os, "mkfifo"):
    pytest.skip("links and pipes of a POSIX system are among them", allow_module_level=True)

CARD = Card(arch="cifar_sprint", vocab=["odd", "even"], normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, make(folder)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    stem = tmp_path_factory.mktemp("export") / "net"
    torch.manual_seed(0)
    save_export(stem, create_model("cifar_sprint", 2), CARD, pickle=False)
    return stem


def test_there_are_enough_of_them(corpus):
    outcomes = Counter(corpus[1].values())
    assert len(corpus[1]) >= 200 and outcomes[GOOD] >= 60 and outcomes[BAD] >= 30 and outcomes[EITHER] >= 100


def test_predict_handles_each(corpus, export, capsys):
    folder, outcomes = corpus
    assert main(["predict", str(export), str(folder), "--json"]) == 1
    out, err = capsys.readouterr()
    predicted = {row["file"] for row in json.loads(out)}
    *lines, total = err.splitlines()
    named = {path: [line for line in lines if line.startswith(f"cifar_fast: {printable(path)}: ")] for path in outcomes}
    for path, outcome in outcomes.items():
        assert (str(path) in predicted) != bool(named[path]), f"{path}: predicted and named, or neither"
        assert len(named[path]) <= 1
        assert outcome == EITHER or (str(path) in predicted) == (outcome == GOOD), f"{path}: {named[path]}"
    assert len(lines) == sum(map(len, named.values()))  # nothing else is printed, each on a line of its own
    assert total == f"cifar_fast: {len(predicted)} predicted, {len(lines)} unreadable, 0 not found"


def test_memory_is_bounded(corpus, export):
    "In a process of its own, which prints its peak; torch alone takes about 400 MB."
    code = ("import sys; from cifar_fast.cli.main import main; from odd_images import peak_mb; "
            "code = main(sys.argv[1:]); print(peak_mb(), file=sys.stderr); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, "predict", str(export), str(corpus[0])], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.returncode == 1
    assert float(done.stderr.split()[-1]) < 1500


def test_training_skips_the_bad_ones(corpus, tmp_path, capsys):
    folder, outcomes = corpus
    for label in ("a", "b"):
        place = tmp_path / "data" / label
        place.mkdir(parents=True)
        for path in outcomes:
            os.symlink(path, place / path.name)
    code = main(["recipe", "sprint", f"data={tmp_path / 'data'}", "epochs=1", "bs=32", f"exports={tmp_path / 'out'}"])
    assert code == 0
    err = capsys.readouterr().err
    bad = 2 * sum(outcome == BAD for outcome in outcomes.values()) - 4
    card = json.loads((tmp_path / "out" / "sprint-data" / "card.json").read_text())
    assert card["data"]["skipped"] >= bad
    no_files = 2 * 2  # a pipe and a device in each class are not listed as images
    assert card["data"]["skipped"] + card["data"]["train"] + card["data"]["test"] == 2 * len(outcomes) - no_files
    assert f"left out {card['data']['skipped']} unreadable images" in err


# ---------------------------------------------------------------- arguments

ODD = {  # arguments in the place of an image, and how their error ends
    "a name of 300 letters": ("x" * 300 + ".png", "File name too long"),
    "a path of 5,000 letters": ("x/" * 2500 + "x.png", "File name too long"),
    "below a file": ("good.png/x.png", "no image there"),
    "a home of nobody": ("~nobody_of_this_name/x.png", "no image there"),
    "a link to itself": ("loop.png", "Too many levels of symbolic links"),
    "a link to nothing": ("dangling.png", "no image there"),
    "nothing": ("nothing.png", "no image there"),
    "an empty argument": ("", "no image there"),
    "a glob of nothing": ("nothing*.png", "no image there"),
    "half a glob": ("[", "no image there"),
    "a name of two lines": ("two\nlines.png", "no image there"),
    "an escape": ("\x1b[31m.png", "no image there"),
    "a name of other bytes": (os.fsdecode(b"\xff.png"), "no image there"),
    "a folder of that name": ("folder.png", "no image there"),
    "a pipe": ("pipe.png", "is not a regular file"),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.png").write_bytes(encoded(noise()))
    (tmp_path / "folder.png").mkdir()
    os.symlink("loop.png", "loop.png")
    os.symlink("gone", "dangling.png")
    os.mkfifo("pipe.png")
    return tmp_path


@pytest.mark.parametrize("name", ODD)
def test_one_argument_costs_no_other(export, place, capsys, name):
    argument, error = ODD[name]
    assert main(["predict", str(export), argument, "good.png"]) == 1
    out, err = capsys.readouterr()
    line, total = err.splitlines()
    assert out.startswith("good.png  ") and len(out.splitlines()) == 1
    assert line.startswith(f"cifar_fast: {printable(argument)}: ") and line.endswith(error)
    assert total.startswith("cifar_fast: 1 predicted, ")


@pytest.fixture
def locked(place, monkeypatch):
    "A folder without permission, simulated: root may read everything."
    (place / "closed").mkdir()
    (place / "closed" / "in.png").write_bytes(encoded(noise()))
    stat, scandir = os.stat, os.scandir

    def refusing(call):
        def guarded(path, *args, **kw):
            if "closed" in os.fspath(path) and (call is scandir or "in.png" in os.fspath(path)):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return call(path, *args, **kw)
        return guarded

    monkeypatch.setattr(os, "stat", refusing(stat))
    monkeypatch.setattr(os, "scandir", refusing(scandir))
    return place


@pytest.mark.parametrize("argument, error", [
    ("closed/in.png", "closed/in.png: Permission denied"),
    ("closed", "closed: cannot be listed (Permission denied)"),
    (".", "closed: cannot be listed (Permission denied)"),
])
def test_what_cannot_be_read_is_named(export, locked, capsys, argument, error):
    assert main(["predict", str(export), argument, "good.png"]) == 1
    out, err = capsys.readouterr()
    assert "good.png  " in out and f"cifar_fast: {error}" in err.splitlines() and "0 not found" in err


def test_a_tree_deeper_than_pythons_stack_is_searched(place):
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    (place / "good.png").rename("deep.png")
    try:
        found, missing, closed = find_images([str(place)])
    finally:
        os.unlink("deep.png")
        for _ in range(1500):  # shutil.rmtree, and with it pytest, would give up
            os.chdir("..")
            os.rmdir("d")
    assert "deep.png" in {path.name for path in found} and not missing and not closed


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"two\nlines.png", b"\x1b[31m.png", "Zoë 猫.png".encode()])
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_image_of_any_name_is_shown(export, place, capfdbinary, name, form):
    os.rename("good.png", name)
    argument = os.fsdecode(name)
    more = {"table": [], "csv": ["--csv", "out.csv"], "json": ["--json"]}[form]
    assert main(["predict", str(export), argument, *more]) == 0
    out = capfdbinary.readouterr().out.decode()
    if form == "table":
        assert out.startswith(f"{printable(argument)}  ") and len(out.splitlines()) == 1
    elif form == "json":
        assert [row["file"] for row in json.loads(out)] == [encodable(argument)]
    else:
        with open("out.csv", encoding="utf-8", newline="") as f:
            assert [row["file"] for row in csv.DictReader(f)] == [encodable(argument)]


def test_globs_end_where_links_lead_in_circles(place):
    os.makedirs("a/b")
    shutil.copy("good.png", "a/b/deep.png")
    for name in ("one", "two"):
        os.symlink(".", f"a/{name}")
    found, missing, closed = find_images(["a/**/*.png", "a/**", "none/**/*.png"])
    assert found == [Path("a/b/deep.png")] and missing == ["none/**/*.png"] and not closed


def test_images_behind_links_to_folders_are_found_once(place):
    "As a run on the folder finds them; not those of a folder above."
    for folder in ("a/b", "album"):
        os.makedirs(folder)
        shutil.copy("good.png", f"{folder}/deep.png")
    for target, name in (("../album", "a/linked"), ("../../a/b", "a/b/again"), ("..", "a/up")):
        os.symlink(target, name)
    assert find_images(["a"]) == ([Path("a/b/deep.png"), Path("a/linked/deep.png")], [], [])
    os.symlink("b", "a/a")  # comes before the folder's own name
    assert find_images(["a/**/b/*.png"])[0] == [Path("a/b/deep.png")]
    os.symlink("a/b", "short")  # behind it `a` lies above
    os.symlink("..", "a/b/up")
    assert find_images(["short"])[0] == [Path("short/deep.png")]


@pytest.mark.parametrize("pattern", ["**", "**/*.png", "a/**/c/*", "*/**/x.*", "a/**/**/y.png", "**/b/**",
                                     "a/*/[xy].png"])
def test_globs_find_what_glob_finds(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", "a/x.png", "a/y.jpg", "a/b/x.png", "a/b/c/y.png", "b/c/d/x.PNG", ".h/x.png", "a/.x.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    expected = {Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)}
    assert set(find_images([pattern])[0]) == expected and expected


def test_a_name_that_stdout_cannot_encode_is_escaped(export, place, monkeypatch):
    os.rename("good.png", "Zoë 猫.png")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["predict", str(export), "Zoë 猫.png"]) == 0
    assert out.buffer.getvalue().startswith(rb"Zo\xeb \u732b.png  ")


CLASS_NAMES = [b"cl\xff", b"two\nlines", b"\x1b[31mred", "a\u00a0b".encode(), b"-dash", b"x" * 255,
               b"\xff" * 255, "猫".encode(), b"a,b", b'quote"', b"%s {}"]


def test_classes_of_any_name_are_trained_and_predicted(tmp_path, capsys):
    for i, name in enumerate(CLASS_NAMES):
        folder = os.fsencode(tmp_path / "own") + b"/" + name
        os.makedirs(folder)
        for j in range(5):
            with open(folder + b"/%d.png" % j, "wb") as f:
                f.write(encoded(noise(seed=5 * i + j)))
    assert main(["recipe", "sprint", f"data={tmp_path / 'own'}", "epochs=1", "bs=16", f"exports={tmp_path}"]) == 0
    stem = str(tmp_path / "sprint-own")
    vocab = json.loads((tmp_path / "sprint-own" / "card.json").read_text("utf-8"))["vocab"]
    assert sorted(vocab) == sorted(printable(os.fsdecode(name)) for name in CLASS_NAMES)
    for command in (["predict", stem, str(tmp_path / "own"), "--csv", str(tmp_path / "x.csv")], ["evaluate", stem],
                    ["export", stem], ["predict", f"{stem}/learner.pkl", str(tmp_path / "own"), "--json"]):
        assert main(command) == 0, command
    assert "\x1b" not in capsys.readouterr().out
