"""The table of runs: its columns, the order of its rows, and its text in 80 characters."""

from __future__ import annotations

import json
import textwrap

import pandas as pd

from cifar_fast.reporting.compare.runs import CompareError
from cifar_fast.reporting.results.summary import selected
from cifar_fast.reporting.results.terminal import HELD_OUT_NOTE, held_out, percent, remark, whole
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
    """Rows by `column`, best or least first, those without a value last; grouped by the images of their accuracy.

    Those are of one dataset after the other, and of each its test images first, then such as were held out of train.

    Raises CompareError naming the columns.
    """
    if column is None:
        return rows[::-1] if reverse else rows
    if column not in rows:
        raise CompareError(f"--sort {column}: no column is called that{nearest(column, rows)}; there are "
                           f"{', '.join(rows)}")
    rows = rows.sort_values(column, ascending=(column in BEST_FIRST) == reverse, kind="stable", na_position="last")
    datasets = sorted(set(rows["data"]), key=lambda name: (name not in ("cifar10", ""), name))
    images = 2 * rows["data"].map(datasets.index) + (rows["split"] == "held-out")
    return rows.loc[images.sort_values(kind="stable").index]


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


def head(rows: pd.DataFrame, wide: bool = False) -> tuple[str, ...]:
    "The headings of `table_cells`."
    names = ("run", "data", *(name for name, _ in measured(rows, wide)), "n", "epochs", "params", "M-adds", "train s")
    return data_last(names) if wide else names


def table_text(rows: pd.DataFrame) -> str:
    "At most 80 characters wide, with notes below where a figure needs a word."
    text = aligned([head(rows), *((shorten(name, NAME_WIDTH), shorten(data, DATA_WIDTH), *figures)
                                  for name, data, *figures in table_cells(rows))], left=2, gap=" ")
    notes = [*general_notes(rows), *run_notes(rows)]
    return "\n".join([*text, "", *(textwrap.fill(printable(note), WIDTH, subsequent_indent="   ") for note in notes)])


def table_cells(rows: pd.DataFrame, wide: bool = False) -> list[tuple[str, ...]]:
    """The text under `head`, a tuple a row.

    `wide`: for a page that may show more than 80 characters, or, on a phone, only the first columns.
    """
    columns = [column for _, column in measured(rows, wide)]
    cells = [cells_of(line, columns) for _, line in rows.iterrows()]
    return [data_last(row) for row in cells] if wide else cells


def data_last(cells: tuple[str, ...]) -> tuple[str, ...]:
    run, data, *others = cells
    return (run, *others, data)


def measured(rows: pd.DataFrame, wide: bool) -> list[tuple[str, str]]:
    "Heading and column of each accuracy; TTA and balanced accuracy do not fit beside each other in 80 characters."
    balanced = bool(rows["balanced"].notna().any())
    return [("accuracy %", "accuracy"), *([("balanced %", "balanced")] if balanced else []),
            *([("TTA %", "tta")] if wide or not balanced else [])]


def cells_of(line, accuracies: list[str]) -> tuple[str, ...]:
    first, *others = (percent(line, column) for column in accuracies)
    adds = "–" if pd.isna(line["multiply_adds"]) else f"{line['multiply_adds'] / 1e6:.1f}M"
    return (printable(line["run"]), printable(line["data"]), first + ("*" if selected(line) else held_out(line)),
            *others, str(line["n"]), whole(line["epochs"]), whole(line["parameters"]), adds, whole(line["seconds"]))


def general_notes(rows: pd.DataFrame, wide: bool = False) -> list[str]:
    "What a reader must know about the figures of all runs."
    explained = {"balanced": "balanced: mean of the classes' accuracies", "tta": "TTA: mean of image and mirror"}
    second = [explained[column] for _, column in measured(rows, wide)[1:]]
    lines = ["; ".join(["accuracy: mean±standard deviation over n seeds", *second])]
    if any(selected(line) for _, line in rows.iterrows()):
        lines.append("*  last epoch's accuracy; TTA is that of the exported weights, which keep=best selected on test")
    if any(held_out(line) for _, line in rows.iterrows()):
        lines.append(HELD_OUT_NOTE)
    if len(set(rows["data"]) - {""}) > 1:
        lines.append("accuracies on different images do not compare: see the column data")
    if len(devices := dict.fromkeys(rows["device"])) > 1:
        lines.append(f"seconds were measured on different devices: {', '.join(devices)}")
    return lines


def run_notes(rows: pd.DataFrame) -> list[str]:
    "What a reader must know about the figures of one run, each beginning with its name."
    return [note for note in rows["note"] if note]
