"""`seeds=`: one recipe with several seeds, by workers that may die, and their mean."""

import os
import signal
from types import SimpleNamespace

import pandas as pd
import pytest
from faults import LONG, NAME
from PIL import Image
from sweeping import folder_of_images, when

from cifar_fast.cli.main import main
from cifar_fast.data.sources import load_source
from cifar_fast.export.card_file import read_card
from cifar_fast.reporting.results import OWN, read, summarize
from cifar_fast.runs.run_dir import Interrupted, RunFolder
from cifar_fast.sweep import seeds
from cifar_fast.training.callbacks.history import DivergedError


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


def test_a_seed_that_diverges_does_not_stop_the_others(tmp_path, capsys, monkeypatch, digits):
    trained = []

    def train(recipe, **_):
        if recipe.seed == 43:
            assert not list(tmp_path.glob("sweeps/*/logs/seed-43.diverged"))
            raise DivergedError("the loss became nan in epoch 1")
        trained.append(recipe.seed)

    def in_this_process(work, args, jobs, look):
        assert work(*args) == work(*args) == 0  # the second worker does not train it again
        look()

    metrics = SimpleNamespace(accuracy=0.5, balanced_accuracy=0.25)
    monkeypatch.setattr(seeds, "train", train)
    monkeypatch.setattr(seeds, "run_pool", in_this_process)
    monkeypatch.setattr(seeds, "is_done", lambda recipe, seed, changes: seed in trained)
    monkeypatch.setattr(seeds, "read_card", lambda path: SimpleNamespace(split="test", metrics=metrics))
    assert main(["recipe", "sprint", "data=digits", f"exports={tmp_path}", "seeds=42,43,44"]) == 2
    err = capsys.readouterr().err
    assert trained == [42, 44] and "seed 43: the loss became nan" in err and "seed 43 diverged" in err
    assert "2 of 3 are trained" in err and "lr=" in err and "test accuracy 50.00%, balanced 25.00%" in err


def test_the_mean_of_seeds_has_balanced_accuracy_where_classes_are_unequal(tmp_path):
    def card(accuracy, balanced, tta):
        return SimpleNamespace(split="test", metrics=SimpleNamespace(
            accuracy=accuracy, balanced_accuracy=balanced, accuracy_tta=tta))

    both = seeds.row_text("net", [card(0.8, 0.6, 0.7), card(0.9, 0.7, 0.8)], tmp_path)
    assert "test accuracy 85.00% ± 7.07" in both and "balanced accuracy 65.00% ± 7.07" in both
    assert "TTA 75.00%" in both
    assert "balanced" not in seeds.row_text("net", [card(0.8, None, None), card(0.9, None, None)], tmp_path)


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


@pytest.mark.parametrize("text", ["0", "1", "1,1", "x", "3,a", "-2", "99999"])
def test_bad_seeds(capsys, text):
    assert main(["recipe", "sprint", "data=digits", f"seeds={text}"]) == 2
    assert f"seeds={text}" in capsys.readouterr().err


def test_a_seed_trains_in_one_process(capsys):
    assert main(["recipe", "sprint", "data=digits", "seeds=2", "procs=2"]) == 2
    assert "give procs=1" in capsys.readouterr().err
