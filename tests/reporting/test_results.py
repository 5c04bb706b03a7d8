"""Rows of runs, the table that grows, one line a recipe, README's block, curves beside the published ones."""

import csv
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rows import made

from cifar_fast.cli.main import main
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Audited, BestEpoch, Data, Machine, Metrics, Normalization, Seconds
from cifar_fast.export.measure import seconds_to
from cifar_fast.recipe import describe, load_recipe, override
from cifar_fast.reporting import plots
from cifar_fast.reporting.results import (
    COLUMNS,
    END,
    OWN,
    START,
    ResultsError,
    add_missing_rows,
    add_row,
    block,
    by_epochs,
    changes,
    draw_published,
    epochs_markdown,
    facts,
    leave_row,
    markdown,
    published_curve,
    read,
    read_all,
    recipe_id,
    redraw,
    replace_block,
    row,
    summarize,
    terminal,
)

ROOT = Path(__file__).parents[2]
FACTS = {"final": {"line": "ours", "stated": {}, "recipe_id": "aaaaaaaa", "data": "cifar10"},
         "net": {"line": "a | net", "recipe_id": "bbbbbbbb", "data": "cifar10",
                 "stated": {"parameters": 199_368, "receptive_field": 44, "accuracy": 87.02, "epochs": 50}}}
IDS = {name: fact["recipe_id"] for name, fact in FACTS.items()}


def lines(*rows):
    return summarize(pd.DataFrame(rows, dtype=str), IDS).set_index("recipe", drop=False)


# ---------------------------------------------------------------- ids and words


def id_of(name, *words):
    return recipe_id(describe(override(load_recipe(name), list(words))))


def test_an_id_is_that_of_an_experiment():
    base = id_of("final")
    assert base == id_of("final", "seed=7", "device=cpu", "exports=elsewhere", "workers=2", "name=again")
    assert base == id_of("final", "valid=0.0", f"epochs={load_recipe('final').epochs}")  # 0.0 is the 0 of the file
    different = {base, *(id_of("final", w) for w in ("epochs=25", "lr=0.1", "fit.pct_start=0.3", "mix=none", "bs=64"))}
    assert len(different) == 6 and all(len(i) == 8 and int(i, 16) >= 0 for i in different)
    told = describe(load_recipe("final"))
    assert recipe_id({k: v for k, v in told.items() if k != "patience"}) == base  # from before there was this setting


@pytest.mark.parametrize("name, words", [
    ("final", ""),
    ("final", "epochs=1 valid=5000"),
    ("final", "valid=0.1 patience=3 channels_last=false"),
    ("final", "fit.pct_start=0.33 mix.cutmix=0.33"),
    ("final", "'fit.moms=(0.95,0.85,0.95)' mix=none ema=none"),
    ("net", "epochs=10 lr=0.01 sched=step sched.step_size=8 sched.gamma=0.1"),
    ("netv2", "sched=none"),
    ("final", "data=digits epochs=8"),
    ("netv2", "data='/some where/mushrooms' epochs=8"),
])
def test_changes_are_the_words_that_were_typed(name, words):
    typed = changes(changed := override(load_recipe(name), shlex.split(words)))
    assert shlex.split(typed) == shlex.split(words)
    assert recipe_id(describe(override(load_recipe(name), shlex.split(typed)))) == recipe_id(describe(changed))
    assert changes(replace(changed, seed=7, workers=1, device="cpu", exports="there")) == typed


def test_changes_of_other_names_and_files():
    final = load_recipe("final")
    assert changes(replace(final, name="final-s7", epochs=3)) == "epochs=3"
    assert changes(replace(final, name="mine", epochs=3)) == ""  # of what, nobody says
    assert changes(replace(final, name="mine", epochs=3, lr=0.2), final) == "epochs=3 lr=0.2"
    assert changes(replace(final, augment=final.augment[1:], epochs=3)) == ""  # somebody's own final.py
    assert changes(replace(final, epochs=3), finds_lr=True) == "epochs=3 lr=find"


CARD = Card(arch="cifar_net", vocab=["a", "b"], normalize=Normalization(mean=[0.5] * 3, std=[0.2] * 3), name="net",
            recipe=describe(load_recipe("net")), settings="epochs=2", epochs=2, split="test",
            metrics=Metrics(n=1000, accuracy=0.8, accuracy_tta=0.81), date="2026-11-21", data=Data(name="cifar10"),
            last_epoch={"train_loss": 1.23456, "valid_accuracy": 0.79}, best_epoch=BestEpoch(epoch=1, accuracy=0.8),
            seconds=Seconds(training=12.345, epoch=6.1),
            audit=Audited(params=199_368, receptive_field=49, macs=200_109_216),
            machine=Machine(device="cpu", threads=2, precision="fp32", compiled=False))


def test_a_row_of_a_card():
    found = row(CARD)
    assert tuple(found) == COLUMNS
    assert found["recipe_id"] == id_of("net") and found["settings"] == "epochs=2" and found["seed"] == 42
    assert (found["last_accuracy"], found["best_accuracy"], found["best_epoch"]) == (0.79, 0.8, 1)
    assert found["seconds"] == 12.3 and found["seconds_to_85"] is None and found["train_loss"] == 1.2346
    assert found["selected_on_test"] and found["split"] == "test" and found["images"] == 1000
    nothing = row(replace(CARD, metrics=None, best_epoch=None, last_epoch={"train_loss": 1.0}, split=None))
    assert nothing["accuracy"] is nothing["last_accuracy"] is nothing["best_accuracy"] is None
    assert not nothing["selected_on_test"]


def test_an_id_outlives_a_move_of_our_functions():
    told = describe(load_recipe("final"))
    moved = json.loads(json.dumps(told).replace("cifar_fast.training.", "cifar_fast.elsewhere."))
    assert moved != told and recipe_id(moved) == recipe_id(told)
    own = json.loads(json.dumps(told).replace("cifar_fast.training.losses", "cifar_fast_recipe_mine"))
    assert recipe_id(own) != recipe_id(told)


def test_seconds_to_85():
    frame = pd.DataFrame({"seconds": [10.0, 20.0, 30.0], "valid_accuracy": [0.8, 0.85, 0.84]})
    assert seconds_to(0.85, frame) == 30
    assert seconds_to(0.86, frame) is None and seconds_to(0.85, frame[["seconds"]]) is None
    assert seconds_to(0.85, frame.assign(valid_ema_accuracy=[0.9, 0.9, 0.9])) == 10  # of the weights that are exported


# ---------------------------------------------------------------- the table that grows


def add(values, exports, name="run"):
    "A finished run of these values: its row goes to the table."
    (exports / name).mkdir(parents=True, exist_ok=True)
    leave_row(exports / name, values)
    add_row(exports / name)


def test_rows_of_older_tables_stay_as_they_are(tmp_path):
    path = tmp_path / OWN
    old = 'recipe,seed,note,accuracy\nfinal,42,"a, b",0.90\nnet,007,,\n'
    path.write_text(old)
    add({"recipe": "sprint", "seed": 1, "accuracy": None, "compiled": True, "epochs": 12}, tmp_path)
    assert path.read_text() == ('recipe,seed,note,accuracy,compiled,epochs\nfinal,42,"a, b",0.90,,\nnet,007,,,,\n'
                                "sprint,1,,,True,12\n")
    assert list(read(path)["seed"]) == ["42", "007", "1"] and not (tmp_path / "run" / "row.csv").exists()
    add(made(), tmp_path / "new")
    assert list(read(tmp_path / "new" / OWN).columns) == list(COLUMNS)


def test_published_rows_and_own_ones_are_read_together_and_only_the_own_grow(tmp_path):
    published = ",".join(COLUMNS) + "\n" + ",".join(made(seed=1).values()) + "\n"
    (tmp_path / "results.csv").write_text(published)
    add(made(seed=2), tmp_path)
    assert list(read_all(tmp_path)["seed"]) == ["1", "2"] and (tmp_path / "results.csv").read_text() == published
    with pytest.raises(ResultsError, match="recipe final"):
        read_all(tmp_path / "nowhere")


@pytest.mark.parametrize("stopped_at", ["unlink", "write_text"])
def test_a_run_that_is_stopped_while_its_row_is_added_gets_it_from_the_next_one_once(tmp_path, monkeypatch, stopped_at):
    from cifar_fast.reporting.results import store

    def stop(*args, **kw):
        raise KeyboardInterrupt

    (tmp_path / "first").mkdir()
    leave_row(tmp_path / "first", made(seed=1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*((Path, "unlink") if stopped_at == "unlink" else (store, "write_text")), stop)
        add_row(tmp_path / "first")
    add_missing_rows(tmp_path)
    add_missing_rows(tmp_path)
    assert list(read(tmp_path / OWN)["seed"]) == ["1"] and not (tmp_path / "first" / "row.csv").exists()


def test_a_row_of_another_run_that_cannot_be_added_is_a_warning(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "row.csv").write_text("no,such\n1\n")
    with pytest.warns(UserWarning, match="row.csv"):
        add_missing_rows(tmp_path)


ADD_SOME = """
import sys
from pathlib import Path
from cifar_fast.reporting.results import add_row, leave_row
folder = Path(sys.argv[1])
(folder.parent / folder.name.replace("run", "ready")).touch()
while len(list(folder.parent.glob("ready-*"))) < 2:  # so that they do meet
    pass
for i in range(15):
    leave_row(folder, {"recipe": folder.name, "seed": i})
    add_row(folder)
"""


def test_runs_that_end_together_lose_no_row(tmp_path):
    folders = [tmp_path / "run-1", tmp_path / "run-2"]
    for folder in folders:
        folder.mkdir()
    both = [subprocess.Popen([sys.executable, "-c", ADD_SOME, folder]) for folder in folders]
    assert [process.wait(120) for process in both] == [0, 0]
    assert read(tmp_path / OWN).groupby("recipe").size().to_dict() == {"run-1": 15, "run-2": 15}


@pytest.mark.parametrize("content, named", [
    (b"", "first line must name the columns"),
    (b"a,b\n1,2\n", "first line must name the columns"),
    (b"recipe,recipe\n1,2\n", "each once"),
    (b"recipe,seed\nfinal,42\n<<<<<<< HEAD\n", "line 3: 1 values under 2 columns"),
    (b"recipe,seed\nfinal,42,3\n", "line 2: 3 values under 2 columns"),
    (b'recipe,seed\n"final,42\n', "cannot be read as CSV"),
    (b"\xff\xfe\x00", "cannot be read as CSV"),
    (b"recipe,accuracy\nfinal,90 %\n", "line 2: accuracy is '90 %', which is not a number"),
])
def test_a_broken_table_is_refused_and_the_row_kept(tmp_path, content, named):
    path, spare = tmp_path / OWN, tmp_path / "final" / "row.csv"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=named) as e:
        add(made(seed=7), tmp_path, "final")
    assert path.read_bytes() == content and str(path) in str(e.value)
    assert "run itself is complete" in str(e.value) and str(spare) in str(e.value)
    with open(spare, newline="") as f:
        assert list(csv.DictReader(f)) == [made(seed=7)]


@pytest.mark.parametrize("column, value", [
    ("accuracy", "nan"), ("accuracy", "inf"), ("best_accuracy", "1.01"), ("accuracy", "-0.1"), ("accuracy", "0٫9"),
    ("epochs", "٣"), ("epochs", "1_000"), ("epochs", "0x10"), ("seconds", "-Infinity"), ("seconds", "1e999"),
    ("parameters", "1e300"), ("multiply_adds", "-1"), ("seconds_to_85", "²"), ("seconds", "\x1b[31m1\x07"),
])
def test_a_value_that_no_run_has_is_named_in_one_line(tmp_path, capsys, column, value):
    path = tmp_path / "results.csv"
    pd.DataFrame([made(), made(**{"recipe": "net", column: value})]).to_csv(path, index=False)
    with pytest.raises(ResultsError, match=f"line 3: {column} is ") as e:
        read(path)
    assert repr(value) in str(e.value) and str(path) in str(e.value)
    for command in (["results", str(path)], ["compare", "--exports", str(tmp_path)]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"{column} is " in err and "\x1b" not in err


@pytest.mark.parametrize("value", ["", "0", "1", "0.5", "1.", ".5", "5e-1", "+0.5", "1E0"])
def test_usual_spellings_of_a_number_are_read(tmp_path, value):
    pd.DataFrame([made(accuracy=value)]).to_csv(tmp_path / "results.csv", index=False)
    assert read(tmp_path / "results.csv")["accuracy"][0] == value


def test_names_are_no_formulas_in_the_file_and_come_back(tmp_path, capsys):
    path, names = tmp_path / OWN, ["=1+1", "+x", "@SUM(A1)", "-2+3", "'=quoted", "-5"]
    for name in names:
        add(made(recipe=name, data=name, recipe_id=name), tmp_path)
    assert list(read(path)["recipe"]) == list(read(path)["data"]) == names
    with open(path, newline="") as f:
        cells = [row["recipe"] for row in csv.DictReader(f)]
    assert cells == ["'=1+1", "'+x", "'@SUM(A1)", "'-2+3", "''=quoted", "-5"]
    assert main(["results", str(path), "--csv"]) == 0
    shown = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {"'=1+1", "''=quoted", "-5"} <= {row["recipe"] for row in shown}


def test_terminal_escapes_in_a_table_are_harmless(tmp_path, capsys):
    evil = "\x1b]0;owned\x07\r"
    add(made(recipe=f"a{evil}", device=evil, split="held-out", data=evil, date=evil, settings=evil), tmp_path)
    for command in (["results", str(tmp_path)], ["compare", "--exports", str(tmp_path)]):
        assert main(command) == 0
        shown = capsys.readouterr()
        assert not set("\x1b\x07\r") & set(shown.out + shown.err)


# ---------------------------------------------------------------- one line a recipe


def test_means_and_deviations_over_seeds():
    found = lines(*(made(seed=s, accuracy=a, accuracy_tta=t, seconds=100 + s, accuracy_without_ema=w)
                    for s, a, t, w in ((1, 0.90, 0.91, 0.90), (2, 0.91, 0.92, 0.89), (3, 0.95, 0.93, ""))))
    final = found.loc["final"]
    assert final["n"] == 3 and final["current"] and final["seeds"] == "1 2 3"
    assert final["accuracy"] == pytest.approx(0.92) and final["accuracy_std"] == pytest.approx(0.07**0.5 / 10)
    assert final["accuracy_tta_std"] == pytest.approx(0.01) and final["seconds"] == 102
    assert np.isnan(final["accuracy_without_ema"]) and np.isnan(final["seconds_to_85"])  # not of all three
    assert found.loc["net", "n"] == 0 and (final["seconds_min"], final["seconds_max"]) == (101, 103)
    again = lines(made(seed=1, accuracy=0.5), made(seed=1, accuracy=0.9)).loc["final"]
    assert again["n"] == 1 and again["accuracy"] == 0.9 and np.isnan(again["accuracy_std"])


def test_the_experiment_of_the_recipe_as_it_stands_or_else_the_latest():
    tuned = made(recipe_id="cccccccc", settings="valid=5000", split="held-out")
    found = lines(made(seed=1), made(seed=2, recipe="final-s2"), tuned)
    assert found.loc["final", "n"] == 2 and found.loc["final", "current"] and "final-s2" not in found.index
    found = lines(made(recipe_id="cccccccc", settings="epochs=1"), made(recipe_id="dddddddd", settings="epochs=2"),
                  made(recipe="mine", recipe_id="eeeeeeee"))
    assert found.loc["final", "settings"] == "epochs=2" and not found.loc["final", "current"]
    assert list(found.index) == ["final", "net", "mine"] and found.loc["mine", "n"] == 1
    old = lines(*({"recipe": "final", "seed": seed, "accuracy": "0.8"} for seed in "12"))
    assert old.loc["final", "n"] == 2 and not old.loc["final", "current"]  # rows from before there were ids


REPRODUCED = made(recipe="net", recipe_id="cccccccc", settings="epochs=1", selected_on_test=True,
                  accuracy="0.87", last_accuracy="0.8552", best_accuracy="0.87", accuracy_without_ema="0.5",
                  parameters="199368", receptive_field="49", epochs="1", seconds_to_85="1234.5",
                  device="NVIDIA GeForce RTX 4090 Laptop GPU")


def test_the_terminals_table():
    long = made(recipe="final-a-folder-with-a-very-long-name", recipe_id="dddddddd", seconds="123456", seed="1",
                accuracy_tta="0.91", split="held-out")
    shown = terminal(lines(made(seed=1, accuracy=0.9), made(seed=2, accuracy=0.91), REPRODUCED, long)).splitlines()
    assert max(map(len, shown)) <= 100
    final, net = (next(s for s in shown if s.startswith(n)) for n in ("final", "net"))
    assert "90.50±0.71 2" in final
    assert "85.52" in net and "87.00*" in net and net.index("85.52") < net.index("87.00*") and "1,234" in net
    said = " ".join(" ".join(shown).split())
    assert "net: run with epochs=1; averaged weights (EMA); without averaging 50.00 %" in said
    assert "very-long-name: measured on held-out images of train" in said
    assert "not run" in terminal(lines(made()))


def test_readmes_table():
    table = markdown(lines(made(seed=1, accuracy_tta=0.91), made(seed=2, accuracy=0.91, accuracy_tta=0.92), REPRODUCED,
                           made(recipe="mine", recipe_id="dddddddd")), FACTS).splitlines()
    assert len(table) == 4 and {row.replace(r"\|", "").count("|") for row in table} == {8}
    assert table[2] == ("| `final` | ours | 192,642 | 65 | – | 90.50 ± 0.71 % accuracy, 91.50 ± 0.71 % TTA, 24 epochs, "
                        "n = 2 | 100 s, cpu (x86_64), fp32, 2026-11-21 |")
    assert table[3] == (r"| `net` | a \| net | 199,368 | 49 (stated: 44) | 87.02 % in 50 epochs | 85.52 % last epoch, "
                        "87.00 % best (selected on test), 50.00 % without EMA, 1 epoch, n = 1; run with `epochs=1` | "
                        "100 s (85 % after 1,234 s), NVIDIA GeForce RTX 4090 Laptop GPU, fp32, 2026-11-21 |")
    slow = lines(made(seed=1), made(seed=2, seconds=151))  # on another machine, say: a mean is no run's
    assert "| 100–151 s, cpu" in markdown(slow, FACTS) and " 100–151 " in terminal(slow)
    for threads, told in (("1", ", 1 thread,"), ("2", ", 2 threads,")):
        assert f"cpu (x86_64){told} fp32" in markdown(lines(made(seed=1, threads=threads)), FACTS)
    assert "thread" not in markdown(lines(made(threads="16", device="NVIDIA H100")), FACTS)
    assert "| – | – | – | not run | – |" in markdown(lines(REPRODUCED), FACTS)


def test_what_epochs_give():
    def run(epochs, **changes):
        recipe = replace(load_recipe("final"), epochs=epochs)
        return made(recipe=f"final-{epochs}", recipe_id=recipe_id(describe(recipe)), epochs=epochs) | changes

    rows = pd.DataFrame([run(60, accuracy="0.92", accuracy_tta="0.93"), run(15, seed="1"), run(15, accuracy="0.91"),
                         made(epochs="15"), run(30, recipe_id="bbbbbbbb")])
    found = by_epochs(rows, "final")
    assert list(found["recipe"]) == ["15", "60"] and list(found["n"]) == [2, 1]
    assert epochs_markdown("final", found).splitlines()[2:] == [
        "| 15 | 90.50 ± 0.71 | – | 2 | 100 s, cpu (x86_64), fp32, 2026-11-21 |",
        "| 60 | 92.00 | 93.00 | 1 | 100 s, cpu (x86_64), fp32, 2026-11-21 |"]
    assert epochs_markdown("final", found[:1]) == ""
    assert by_epochs(pd.DataFrame([{"recipe": "final", "accuracy": "0.9"}]), "final").empty  # a table made by hand


def test_a_block_is_replaced_between_its_markers_alone():
    text = f"before\n{START}\nold\n{END}\nafter\n"
    assert replace_block(text, "| new |") == f"before\n{START}\n| new |\n{END}\nafter\n"
    for wrong in ("no markers", START, END, f"{END} {START}", text + text):
        with pytest.raises(ResultsError, match="X.md needs these two lines once"):
            replace_block(wrong, "", "X.md")


def test_readme_has_the_tables_of_the_committed_rows():
    "After a run or a change of a recipe: python -m cifar_fast results --readme."
    text = (ROOT / "exports" / "README.md").read_text("utf-8")
    assert replace_block(text, block(read(ROOT / "exports" / "results.csv"), facts())) == text


def test_the_command(tmp_path, capsys):
    committed, readme = str(ROOT / "exports" / "results.csv"), tmp_path / "README.md"
    assert main(["results", committed]) == 0
    assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())
    assert main(["results", committed, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("recipe,recipe_id,current,n,")
    assert main(["results", committed, "--json"]) == 0
    assert '"recipe":"final"' in capsys.readouterr().out
    readme.write_text(f"{START}\n{END}")
    assert main(["results", committed, "--readme", str(readme)]) == 0
    assert "`optimized200k`" in readme.read_text("utf-8")
    readme.write_text("no markers")
    assert main(["results", committed, "--readme", str(readme)]) == 2
    assert readme.read_text() == "no markers" and str(readme) in capsys.readouterr().err


# ---------------------------------------------------------------- published curves


HISTORY = pd.DataFrame({"epoch": [1, 2], "train_accuracy": [0.5, 0.6], "valid_accuracy": [0.55, 0.65]})


@pytest.mark.parametrize("name, rows, epochs, best", [
    ("netv2", 42, 42, 0.8521), ("net", 50, 50, 0.8702), ("strided", 30, 30, 0.8737), ("mobile", 9, 80, 0.8725)])
def test_published_curves(name, rows, epochs, best):
    record = published_curve(name)
    assert len(record) == rows and record["epoch"].min() == 1 and record["epoch"].max() == epochs
    assert record["valid_accuracy"].max() == pytest.approx(best) and record["train_accuracy"].between(0.2, 0.95).all()
    assert list(published_curve("netv2").columns) == ["epoch", "train_accuracy", "valid_accuracy"]


def test_published_against_measured_in_one_figure():
    fig = plots.published(HISTORY, published_curve("mobile"), "mobile", target=0.85)
    train, valid = fig.axes
    assert train.get_ylabel() == "training accuracy (%)" and valid.get_xlabel() == "epoch"
    published, measured, target = valid.lines
    assert published.get_linestyle() == "--" and published.get_marker() == "o"  # nine rows are points
    assert measured.get_linestyle() == "-" and measured.get_label() == "measured (selected on test)"
    assert list(measured.get_ydata()) == pytest.approx([55, 65])
    assert target.get_color() == "red" and target.get_ydata()[0] == 85
    unvalidated = HISTORY.drop(columns="valid_accuracy")
    two = plots.published({"one": HISTORY, "another": unvalidated}, published_curve("strided"))
    assert [len(ax.lines) for ax in two.axes] == [3, 2]  # without a target no line
    assert two.axes[0].lines[1].get_color() != two.axes[0].lines[2].get_color()


def test_published_png_stands_beside_histories_of_cifar10(tmp_path, capsys):
    card = replace(CARD, name="strided-2", recipe_name="strided", recipe=describe(load_recipe("strided")))
    assert draw_published(tmp_path, replace(card, recipe_name="final"), HISTORY) is None
    assert draw_published(tmp_path, replace(card, recipe_name="../published/strided"), HISTORY) is None
    assert draw_published(tmp_path, replace(card, recipe={**card.recipe, "data": "digits"}), HISTORY) is None
    with pytest.raises(ResultsError, match="recipe netv2"):
        redraw(tmp_path)
    folder = tmp_path / "strided-2"
    folder.mkdir()
    card.write(folder)
    (folder / "history.csv").write_text("epoch\n1\n")
    with pytest.raises(ResultsError, match="strided-2/history.csv is no history"):
        redraw(tmp_path)
    HISTORY.to_csv(folder / "history.csv", index=False)
    assert main(["results", str(tmp_path), "--curves"]) == 0
    assert (folder / "published.png").stat().st_size > 10_000 and "published.png" in capsys.readouterr().out


def test_a_run_named_after_its_seed_is_its_recipe_s(capsys):
    "Of a former state of the recipe it makes no line of its own."
    rows = pd.DataFrame([made(recipe="sprint-43", seed="43", recipe_id="old"), made(recipe="sprint", recipe_id="new"),
                         made(recipe="mine-7", seed="7", recipe_id="x")])
    found = summarize(rows, {"sprint": "new"})
    assert list(found["recipe"]) == ["sprint", "mine-7"] and list(found["n"]) == [1, 1]


def test_seeds_of_one_experiment_are_one_line_whatever_their_runs_are_called():
    "Finished runs are never replaced, so another seed has another name."
    rows = [made(recipe="sprint-digits", recipe_id="x", seed="42", accuracy="0.9", settings="data=digits"),
            made(recipe="sprint-digits-2", recipe_id="x", seed="43", accuracy="0.92", settings="data=digits"),
            made(recipe="sprint-digits-3", recipe_id="y", settings="data=digits lr=0.1")]
    found = summarize(pd.DataFrame(rows), {}).set_index("recipe")
    assert list(found.index) == ["sprint-digits", "sprint-digits-3"] and found.loc["sprint-digits", "n"] == 2
    assert found.loc["sprint-digits", "accuracy"] == pytest.approx(0.91)
    shown = terminal(summarize(pd.DataFrame([{**row, "images": "60"} for row in rows]), {}))
    assert "sprint-digits-3: data=digits lr=0.1" in shown
    said = " ".join(shown.split())
    assert "mean of sprint-digits, sprint-digits-2; for one run alone: n = 60" in said
    replaced = summarize(pd.DataFrame([*rows, made(recipe="sprint-digits", recipe_id="z")]), {})
    assert list(replaced["recipe_id"]) == ["x", "y", "z"] and list(replaced["n"]) == [1, 1, 1]


def test_few_images_have_their_interval_in_the_tables():
    few = summarize(pd.DataFrame([made(recipe="sprint-digits", recipe_id="x", accuracy=354 / 359, images=359)]), {})
    assert "n = 359, 95 % interval 96.8 to 99.4 %" in terminal(few)
    assert "interval" not in terminal(summarize(pd.DataFrame([made()]), {}))
