"""Over two hundred odd and broken pictures through the commands: each good one is predicted, each bad one named."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from odd_pictures import BAD, EITHER, GOOD, make

from cifar_fast.archs import create_arch
from cifar_fast.cli import main
from cifar_fast.data.errors import printable
from cifar_fast.inference import save_export

if not hasattr(os, "mkfifo"):
    pytest.skip("links and pipes of a POSIX system are among them", allow_module_level=True)

CARD = {"arch": "cifar_sprint", "vocab": ["odd", "even"], "normalize": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "data": {"name": "made up", "fingerprint": ""}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, make(folder)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    stem = tmp_path_factory.mktemp("export") / "net"
    torch.manual_seed(0)
    save_export(stem, create_arch("cifar_sprint", 2), CARD, pickle=False)
    return stem


def test_there_are_enough_of_them(corpus):
    fates = Counter(corpus[1].values())
    assert len(corpus[1]) >= 200 and fates[GOOD] >= 60 and fates[BAD] >= 30 and fates[EITHER] >= 100


def test_predict_answers_for_each(corpus, export, capsys):
    folder, fates = corpus
    assert main(["predict", str(export), str(folder), "--json"]) == 1
    out, err = capsys.readouterr()
    predicted = {row["file"] for row in json.loads(out)}
    *lines, total = err.splitlines()
    named = {path: [line for line in lines if line.startswith(f"cifar_fast: {printable(path)}: ")] for path in fates}
    for path, fate in fates.items():
        assert (str(path) in predicted) != bool(named[path]), f"{path}: predicted and named, or neither"
        assert len(named[path]) <= 1
        assert fate == EITHER or (str(path) in predicted) == (fate == GOOD), f"{path}: {named[path]}"
    assert len(lines) == sum(map(len, named.values()))  # nothing else is said, each on a line of its own
    assert total == f"cifar_fast: {len(predicted)} predicted, {len(lines)} unreadable, 0 not found"


def test_memory_is_bounded(corpus, export):
    "A process of its own tells its peak; torch alone takes some 400 MB of it."
    code = ("import sys; from cifar_fast.cli import main; from odd_pictures import peak_mb; code = main(sys.argv[1:]); "
            "print(peak_mb(), file=sys.stderr); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, "predict", str(export), str(corpus[0])], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)})
    assert done.returncode == 1
    assert float(done.stderr.split()[-1]) < 1500


def test_training_leaves_the_bad_ones_out(corpus, tmp_path, capsys):
    folder, fates = corpus
    for label in ("a", "b"):
        place = tmp_path / "data" / label
        place.mkdir(parents=True)
        for path in fates:
            os.symlink(path, place / path.name)
    code = main(["recipe", "sprint", f"data={tmp_path / 'data'}", "epochs=1", "bs=32", f"exports={tmp_path / 'out'}"])
    assert code == 0
    err = capsys.readouterr().err
    bad = 2 * sum(fate == BAD for fate in fates.values()) - 4
    card = json.loads((tmp_path / "out" / "sprint-data.json").read_text())
    assert card["data"]["skipped"] >= bad
    no_files = 2 * 2  # a pipe and a device in each class are passed over
    assert card["data"]["skipped"] + card["data"]["train"] + card["data"]["test"] == 2 * len(fates) - no_files
    assert f"left out {card['data']['skipped']} unreadable pictures" in err
