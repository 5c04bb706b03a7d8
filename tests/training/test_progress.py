import json
import math
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from strangers import CARD

from cifar_fast.cli.main import main
from cifar_fast.training.callbacks import progress
from cifar_fast.training.callbacks.progress import Progress, choose_mode, duration, heading, line
from cifar_fast.training.state import TrainState
from cifar_fast.utils.terminal import accuracy_curves, whole_ticks

ROW = {"epoch": 3, "train_loss": 1.2345, "train_accuracy": 0.5, "valid_loss": 12.5, "valid_accuracy": 1.0,
       "valid_ema_accuracy": 0.987, "lr": 0.00123, "momentum": 0.9, "seconds": 1234.5, "images_per_second": 12345}


def test_a_line_fits_a_narrow_terminal_and_stands_under_its_heading():
    text, (above, head) = line(ROW, 200) + " *", heading(ROW, "held-out").splitlines()
    assert len(text) <= 80
    assert above.split() == ["train"] * 2 + ["held-out"] * 3
    assert [len(head[:m.end()]) for m in re.finditer(r"(?:EMA )?\S+", head)][1:] == \
        [len(text[:m.end()]) for m in re.finditer(r"\S+", text)][1:-1]


def test_columns_that_a_run_lacks_are_left_out():
    row = {k: v for k, v in ROW.items() if not k.startswith("valid")}
    assert "held-out" not in heading(row, "held-out") and "100.00%" not in line(row, 3)


@pytest.mark.parametrize("seconds, said", [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"),
                                           (7500, "2 h 05 min")])
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_a_mode_that_is_none():
    with pytest.raises(ValueError, match="log='loud': choose one of auto, bars, lines, json, quiet"):
        choose_mode("loud")


def run(tmp_path, capsys, *args):
    code = main(["recipe", "mobile", "arch=cifar_sprint", "data=digits", "epochs=2", "bs=512", "tta=0", "report=no",
                 f"exports={tmp_path}", *args])
    return code, *capsys.readouterr()


def test_json_is_an_object_an_epoch_and_nothing_else_on_stdout(tmp_path, capsys):
    code, out, err = run(tmp_path, capsys, "--log", "json")
    *rows, last = [json.loads(text) for text in out.splitlines()]
    assert code == 0 and [r["epoch"] for r in rows] == [1, 2] and {r["epochs"] for r in rows} == {2}
    card = json.loads((tmp_path / "mobile-digits" / "card.json").read_text())
    assert last["done"] and last["accuracy"] == card["metrics"]["accuracy"] and last["split"] == card["split"]
    assert last["selected_on_test"]
    assert last["export"] == str(tmp_path / "mobile-digits") and last["best_epoch"] == card["best_epoch"]
    assert {"train_loss", "valid_accuracy", "lr", "images_per_second", "best"} <= rows[0].keys() and rows[0]["best"]
    assert "test accuracy" in err and "next:" in err  # the words are still there


def test_quiet_leaves_the_result(tmp_path, capsys):
    code, out, err = run(tmp_path, capsys, "-q")
    assert code == 0 and "test accuracy" in out and err == ""
    assert len(out.splitlines()) == 3 and out.splitlines()[-1] == f"saved: {tmp_path / 'mobile-digits'}/"


def test_lines_in_a_pipe(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(progress.EVERY, "lines", 0)
    code, out, _ = run(tmp_path, capsys, "target=0.999")
    assert re.search(r"epoch 1/2, batch 2/3: train loss \d\.\d{3}, acc \d+\.\d%, lr 0\.01, \d+ img/s, \d+ s left",
                     out)
    assert len(re.findall("^ +train +train +test +test$", out, re.M)) == 1
    assert len(re.findall(r"^ +[12]/2 ", out, re.M)) == 2 and "\r" not in out
    best = [text for text in out.splitlines() if text.endswith(" *")]
    assert best and best[0].startswith("   1/2")
    starred = int(best[-1].split("/")[0])
    assert re.search(rf"^\* best so far; the best of all is epoch {starred}: test accuracy \d+\.\d\d%$", out, re.M)
    assert "accuracy (%)" in out and "- target 99.9%" in out  # drawn at the end, with this run's own target
    table = [text for text in out.split("accuracy (%)")[0].splitlines()[1:] if not text.startswith("epoch ")]
    assert max(map(len, table)) <= 80  # lines of batches grow with the digits of what they count


@pytest.mark.parametrize("recipe, line", [({}, None), ({"target": 0}, None), ({"target": 0.9}, 0.9),
                                          ({"target": "0.9"}, None), ({"target": True}, None)])
def test_only_a_recipe_with_a_target_has_its_line(recipe, line):
    card = replace(CARD, recipe=recipe)
    assert card.target_accuracy == line
    frame = pd.DataFrame({"epoch": [1, 2], "train_accuracy": [0.5, 0.6]})
    assert ("%" in accuracy_curves(frame, card.target_accuracy).splitlines()[0].split("train")[1]) == (line is not None)


def test_epochs_without_validation_are_left_out_of_the_curve():
    "As where a run is resumed with valid=0.1: plotext would end the whole process at a NaN."
    frame = pd.DataFrame({"epoch": [1, 2, 3], "train_accuracy": [0.5, 0.6, 0.7],
                          "valid_accuracy": [math.nan, 0.5, 0.6]})
    assert accuracy_curves(frame).count("•") >= 1 + 2
    assert "• validation" in accuracy_curves(frame.assign(valid_accuracy=math.nan))


@pytest.mark.parametrize("count, ticks", [(1, [1]), (2, [1, 2]), (8, [*range(1, 9)]),
                                          (40, [1, 7, 12, 18, 23, 29, 34, 40])])
def test_epochs_are_counted_in_whole_ones(count, ticks):
    assert whole_ticks(range(1, count + 1)) == ticks
    frame = pd.DataFrame({"epoch": range(1, count + 1), "train_accuracy": [i / count for i in range(count)]})
    below = accuracy_curves(frame).splitlines()[-2]
    assert [int(tick) for tick in below.split()] == ticks


def test_verbose_says_what_was_resolved_and_where_an_error_comes_from(tmp_path, capsys):
    code, _, err = run(tmp_path, capsys, "-v", "--log", "lines")
    assert code == 0 and '"epochs": 2' in err
    assert main(["recipe", "nil", "-v"]) == 2
    err = capsys.readouterr().err
    assert "no recipe is called 'nil'" in err and "Traceback" in err


def test_a_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "-F", os.ttyname(theirs), "cols", "80", "rows", "24"], check=True)
    child = subprocess.Popen([sys.executable, "-m", "cifar_fast", "recipe", "mobile", "arch=cifar_sprint",
                              "data=digits", "epochs=1", f"exports={tmp_path}", "tta=0", "report=no"],
                             stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux tells the end of a terminal so
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    text = shown.decode()
    assert child.wait() == 0
    assert re.search(r"epoch 1/1 +\d+%\|.*\| 12/12, train loss \d\.\d{3}, acc .*, lr 0\.01", text)
    assert "\n   1/1 " in text.replace("\r", "") or "   1/1 " in text


@pytest.mark.parametrize("rows, said", [
    ([{"epoch": 1, "valid_accuracy": 0.5}], "epoch 1: test accuracy 50.00%"),
    ([{"epoch": 1, "valid_accuracy": 0.5}, {"epoch": 2, "valid_accuracy": 0.5}], "epoch 1: test accuracy 50.00%"),
    ([{"epoch": 1}, {"epoch": 2, "valid_accuracy": 0.4}],  # resumed with another column
     "epoch 2: test accuracy 40.00%"),
    ([{"epoch": 1}, {"epoch": 2}], None)])
def test_the_star_is_explained_where_one_stands(capsys, rows, said):
    state = TrainState()
    p = Progress(state, "test", "lines")
    p.learn = SimpleNamespace(n_epoch=2)
    for row in rows:
        state.rows.append(row)
        p.after_epoch()
    p.after_fit()
    out = capsys.readouterr().out
    assert (f"* best so far; the best of all is {said}" in out) if said else "*" not in out


@pytest.mark.parametrize("args, on", [(["valid=100"], "held-out"), ([], "test")])
def test_json_ends_with_the_result_whatever_it_was_measured_on(tmp_path, capsys, args, on):
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=512", "tta=0", "report=no", "--log", "json",
                 f"exports={tmp_path}", *args]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["split"] == on and 0 <= last["accuracy"] <= 1 and last["n"] == (100 if args else 359)


def test_a_stopped_run_leaves_no_bar():
    p = Progress(TrainState(), mode="bars")
    p.bar = progress.tqdm(total=3, disable=True)
    p.undo()
    assert p.bar is None
