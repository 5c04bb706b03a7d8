"""Whole runs that are measured on train, break off, diverge or are tampered with."""


import pandas as pd
import pytest

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.predictor import load_export


@pytest.fixture
def sprint(tmp_path, digits):
    "Runs `recipe sprint` on digits with changes; returns the exit code."
    def run(*changes):
        return main(["recipe", "sprint", "data=digits", "epochs=2", "bs=64", "report=no", f"exports={tmp_path}",
                     *changes])
    return run


def test_a_run_that_holds_out_a_part_of_train_leaves_the_test_set_alone(sprint, tmp_path, capsys):
    assert sprint("valid=0.2", "patience=5") == 0
    card = read_card(tmp_path / "sprint-digits")
    assert card.split == "held-out" and card.metrics.n == 288 and not card.selected_on_test
    assert card.best_epoch and card.validated_on == "held-out"
    out = capsys.readouterr().out
    assert "held-out accuracy" in out and "test accuracy" not in out


def test_published_runs_say_that_they_selected_on_test(tmp_path, capsys, digits):
    assert main(["recipe", "mobile", "data=digits", "epochs=1", f"exports={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "validates and selects on TEST" in out and "selected on test" in out
    row, card = pd.read_csv(tmp_path / "runs.csv").iloc[0], read_card(tmp_path / "mobile-digits")
    assert row["split"] == "test" and row["selected_on_test"] and card.selected_on_test and row["best_epoch"] == 1
    assert row["last_accuracy"] == row["best_accuracy"] == pytest.approx(card.metrics.accuracy, abs=1e-6)
    assert not (tmp_path / "mobile-digits" / "published.png").exists()  # its published curve is of CIFAR-10
    assert main(["evaluate", str(tmp_path / "mobile-digits")]) == 0
    assert "selected on these very images" in capsys.readouterr().out


def test_a_diverging_run_says_so_and_leaves_the_former_export(sprint, tmp_path, capsys):
    assert sprint() == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "sprint-digits").iterdir()}
    assert sprint("lr=1e30", "--overwrite") == 2
    err = capsys.readouterr().err
    assert "the loss became" in err and "epoch 1" in err and "try a lower one" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "sprint-digits").iterdir()} == before


def test_a_broken_table_is_told_before_training(sprint, tmp_path, capsys):
    (tmp_path / "runs.csv").write_text("recipe,seed\nfinal\n")
    assert sprint() == 2
    err = capsys.readouterr().err
    assert "runs.csv, line 2: 1 values under 2 columns" in err and "repair it, or move it away" in err
    assert [p.name for p in tmp_path.iterdir()] == ["runs.csv"]


def test_an_interrupted_run_says_where_its_history_is(sprint, tmp_path, capsys, monkeypatch):
    from cifar_fast.training.callbacks.history import History

    def after_train(self, plain=History.after_train):
        plain(self)
        if self.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(History, "after_train", after_train)
    assert sprint() == 130
    running = tmp_path / ".sprint-digits.running"
    assert str(running) in capsys.readouterr().err
    assert len((running / "run" / "history.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "sprint-digits").exists()
    monkeypatch.undo()
    assert sprint("--restart") == 0 and not running.exists()


def test_weights_that_are_not_those_of_the_card_are_refused(sprint, tmp_path):
    assert sprint() == 0
    weights = tmp_path / "sprint-digits" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ExportError, match="another sha256"):
        load_export(tmp_path / "sprint-digits")


def test_a_learner_exported_by_hand_opens_where_the_cache_is_gone(digits, tmp_path):
    import shutil

    from fastai.learner import load_learner

    from cifar_fast.all import cifar_learner, load_source, make_dls

    source = load_source("digits", cache=tmp_path / "cache")
    learn = cifar_learner(make_dls(source, bs=64, device="cpu"), "cifar_sprint", path=tmp_path)
    learn.export("by_hand.pkl")
    shutil.rmtree(tmp_path / "cache")
    label, _, probs = load_learner(tmp_path / "by_hand.pkl").predict(digits.test.images[0])
    assert label in source.vocab and len(probs) == 10
