"""The table of runs: its columns, the order of its rows, and its text in 80 characters."""

from __future__ import annotations

import json
import textwrap

import pandas as pd

from cifar_fast.reporting.compare.runs import CompareError
from cifar_fast.reporting.results.summary import selected
from cifar_fast.reporting.results.terminal import percent, remark, whole
from cifar_fast.utils.csv import csv_text
from cifar_fast.utils.tables import aligned
from cifar_fast.utils.text import nearest, printable, shorten

WIDTH = 80
NAME_WIDTH, DATA_WIDTH = 16, 9
BEST_FIRST = ("accuracy", "balanced", "tta", "best")
"Columns that are sorted from the greatest down; all others from the least up."

COUNTS = ("epochs", "images", "parameters", "multiply_adds", "flash", "receptive_field")

TAKEN = {
    "run": "recipe", "accuracy": "accuracy", "accuracy_std": "accuracy_std", "balanced": "balanced_accuracy",
    "balanced_std": "balanced_accuracy_std", "tta": "accuracy_tta", "tta_std": "accuracy_tta_std",
    "best": "best_accuracy", "n": "n", "epochs": "epochs", "parameters": "parameters",
    "multiply_adds": "multiply_adds", "flash": "flash", "receptive_field": "receptive_field", "seconds": "seconds",
    "seconds_to_85": "seconds_to_85", "split": "split", "selected_on_test": "selected_on_test", "images": "images",
    "data": "data", "settings": "settings", "current": "current", "device": "device", "date": "date",
    "commit": "commit",
}
"Column of the table → column of `results.summarize`."


def table(lines: pd.DataFrame) -> pd.DataFrame:
    "The columns of TAKEN and a note; for runs that were selected on test `accuracy` is the last epoch's."
    picked = [line for _, line in lines.iterrows()]
    rows = [{**{ours: line[theirs] for ours, theirs in TAKEN.items()}, "note": remark(line)} for line in picked]
    for row, line in zip(rows, picked, strict=True):
        if selected(line):
            row |= {"accuracy": line["last_accuracy"], "accuracy_std": line["last_accuracy_std"]}
    return pd.DataFrame(rows, columns=[*TAKEN, "note"])


def ordered(rows: pd.DataFrame, column: str | None, reverse: bool = False) -> pd.DataFrame:
    """Rows by `column`, best or least first, those without a value last; grouped by dataset.

    Raises CompareError naming the columns.
    """
    if column is None:
        return rows[::-1] if reverse else rows
    if column not in rows:
        raise CompareError(f"--sort {column}: no column is called that{nearest(column, rows)}; there are "
                           f"{', '.join(rows)}")
    rows = rows.sort_values(column, ascending=(column in BEST_FIRST) == reverse, kind="stable", na_position="last")
    datasets = sorted(set(rows["data"]), key=lambda name: (name not in ("cifar10", ""), name))
    return rows.sort_values("data", key=lambda names: names.map(datasets.index), kind="stable")


# ---------------------------------------------------------------- for programs


def table_csv(rows: pd.DataFrame) -> str:
    return csv_text(numbered(rows)).rstrip("\n")


def records(rows: pd.DataFrame) -> list[dict]:
    "A dict a row, None for what a run does not have."
    return json.loads(numbered(rows).to_json(orient="records", double_precision=15, force_ascii=False))


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    "Counts whose means are whole are written without a point: 192642, not 192642.0."
    counts = [c for c in COUNTS if (rows[c].dropna() % 1 == 0).all()]
    return rows.astype(dict.fromkeys(counts, "Int64"))


# ---------------------------------------------------------------- in the terminal


HEAD = ("run", "data", "accuracy %", "TTA %", "n", "epochs", "params", "M-adds", "train s")
BALANCED = "balanced %"
"Instead of TTA where the classes of a run are unequal: both do not fit beside each other."


def table_text(rows: pd.DataFrame) -> str:
    "At most 80 characters wide, with notes below where a figure needs a word."
    head = [BALANCED if name == "TTA %" and shows_balanced(rows) else name for name in HEAD]
    text = aligned([head, *((shorten(name, NAME_WIDTH), shorten(data, DATA_WIDTH), *figures)
                            for name, data, *figures in table_cells(rows))], left=2, gap=" ")
    return "\n".join([*text, "", *(textwrap.fill(printable(note), WIDTH, subsequent_indent="   ")
                                   for note in notes(rows))])


def table_cells(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    "The text under HEAD, a tuple a row."
    second = "balanced" if shows_balanced(rows) else "tta"
    return [cells_of(line, second) for _, line in rows.iterrows()]


def shows_balanced(rows: pd.DataFrame) -> bool:
    return bool(rows["balanced"].notna().any())


def cells_of(line, second: str) -> tuple[str, ...]:
    star = "*" if selected(line) else ""
    adds = "–" if pd.isna(line["multiply_adds"]) else f"{line['multiply_adds'] / 1e6:.1f}M"
    return (printable(line["run"]), printable(line["data"]), percent(line, "accuracy") + star, percent(line, second),
            str(line["n"]), whole(line["epochs"]), whole(line["parameters"]), adds, whole(line["seconds"]))


def notes(rows: pd.DataFrame) -> list[str]:
    "What a reader must know about the figures."
    second = "balanced: mean of the classes' accuracies" if shows_balanced(rows) else "TTA: mean of image and mirror"
    lines = [f"accuracy: mean±standard deviation over n seeds; {second}"]
    if any(selected(line) for _, line in rows.iterrows()):
        lines.append("*  last epoch's accuracy; TTA is that of the exported weights, which keep=best selected on test")
    if len(set(rows["data"]) - {""}) > 1:
        lines.append("accuracies on different images do not compare: see the column data")
    if len(devices := dict.fromkeys(rows["device"])) > 1:
        lines.append(f"seconds were measured on different devices: {', '.join(devices)}")
    return [*lines, *(note for note in rows["note"] if note)]
