"""The tables of runs: how they grow, and what is refused in them."""

import csv
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rows import made

from cifar_fast.cli.main import main
from cifar_fast.reporting.results import (
    COLUMNS,
    OWN,
    ResultsError,
    add_missing_rows,
    add_row,
    leave_row,
    read,
    read_all,
)


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
