"""The table of runs: which columns there are, in which order the rows stand, and how 80 characters hold it."""

from __future__ import annotations

import json
import textwrap

import pandas as pd

from cifar_fast.reporting.compare.runs import CompareError
from cifar_fast.reporting.results.summary import selected
from cifar_fast.reporting.results.terminal import percent, remark, whole
from cifar_fast.utils.text import nearest, printable

WIDTH = 80
NAME_WIDTH, DATA_WIDTH = 16, 9
BEST_FIRST = ("accuracy", "tta", "best")
"Columns that are sorted from the greatest down; all others from the least up."

COUNTS = ("epochs", "images", "parameters", "multiply_adds", "receptive_field")

TAKEN = {
    "run": "recipe", "accuracy": "accuracy", "accuracy_std": "accuracy_std", "tta": "accuracy_tta",
    "tta_std": "accuracy_tta_std", "best": "best_accuracy", "n": "n", "epochs": "epochs", "parameters": "parameters",
    "multiply_adds": "multiply_adds", "receptive_field": "receptive_field", "seconds": "seconds",
    "seconds_to_85": "seconds_to_85", "split": "split", "selected_on_test": "selected_on_test", "images": "images",
    "data": "data", "settings": "settings", "current": "current", "device": "device", "date": "date",
    "commit": "commit",
}
"Column of the table → column of `results.summarize`."


def table(lines: pd.DataFrame) -> pd.DataFrame:
    "The columns of TAKEN and a note; of runs that were selected on test `accuracy` is the last epoch's."
    picked = [line for _, line in lines.iterrows()]
    rows = [{**{ours: line[theirs] for ours, theirs in TAKEN.items()}, "note": remark(line)} for line in picked]
    for found, line in zip(rows, picked, strict=True):
        if selected(line):
            found |= {"accuracy": line["last_accuracy"], "accuracy_std": line["last_accuracy_std"]}
    return pd.DataFrame(rows, columns=[*TAKEN, "note"])


def ordered(rows: pd.DataFrame, column: str | None, reverse: bool = False) -> pd.DataFrame:
    """Rows by `column`, best or least first, those without a value last; those of one dataset stand together.

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
    return numbered(rows).to_csv(index=False, lineterminator="\n").rstrip()


def records(rows: pd.DataFrame) -> list[dict]:
    "A dict a row, None for what a run has not."
    return json.loads(numbered(rows).to_json(orient="records", double_precision=15, force_ascii=False))


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    "Counts whose means are whole are written without a point: 192642, not 192642.0."
    counts = [c for c in COUNTS if (rows[c].dropna() % 1 == 0).all()]
    return rows.astype(dict.fromkeys(counts, "Int64"))


# ---------------------------------------------------------------- in the terminal


HEAD = ("run", "data", "accuracy %", "TTA %", "n", "epochs", "params", "M-adds", "train s")


def table_text(rows: pd.DataFrame) -> str:
    "At most 80 characters wide, with notes below where a figure needs a word."
    cells = [HEAD, *((shortened(name), shortened(data, DATA_WIDTH), *figures)
                     for name, data, *figures in table_cells(rows))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    text = [" ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in cells]
    return "\n".join([*text, "", *(textwrap.fill(note, WIDTH, subsequent_indent="   ") for note in notes(rows))])


def table_cells(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    "The words under HEAD, a tuple a row."
    return [cells_of(line) for _, line in rows.iterrows()]


def cells_of(line) -> tuple[str, ...]:
    star = "*" if selected(line) else ""
    adds = "–" if pd.isna(line["multiply_adds"]) else f"{line['multiply_adds'] / 1e6:.1f}M"
    return (printable(line["run"]), printable(line["data"]), percent(line, "accuracy") + star, percent(line, "tta"),
            str(line["n"]), whole(line["epochs"]), whole(line["parameters"]), adds, whole(line["seconds"]))


def shortened(name: str, width: int = NAME_WIDTH) -> str:
    "A name in so many characters, its middle left out: what tells runs apart stands at either end."
    start = (width - 2) // 2
    return name if len(name) <= width else f"{name[:start]}…{name[start - width + 1:]}"


def notes(rows: pd.DataFrame) -> list[str]:
    "What has to be known of the figures."
    found = ["accuracy: mean±standard deviation over n seeds; TTA: mean of image and mirror"]
    if any(selected(line) for _, line in rows.iterrows()):
        found.append("*  the last epoch's accuracy; TTA is that of the weights that were kept, which keep=best "
                     "selected on test")
    if len(set(rows["data"]) - {""}) > 1:
        found.append("accuracies on different images do not compare: see the column data")
    if len(devices := dict.fromkeys(rows["device"])) > 1:
        found.append(f"seconds were measured on different devices: {', '.join(map(printable, devices))}")
    return [*found, *(printable(note) for note in rows["note"] if note)]
