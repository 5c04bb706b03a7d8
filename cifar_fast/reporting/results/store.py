"""results.csv: read as text, so that a written row stays as it is; a row is added under a lock, the file replaced."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cifar_fast.utils.csv import csv_text, original_cell
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import remove_temporaries, write_text
from cifar_fast.utils.text import shorten

COLUMNS = (
    "recipe", "recipe_id", "settings", "seed", "epochs", "accuracy", "accuracy_tta", "accuracy_without_ema",
    "last_accuracy", "best_accuracy", "best_epoch", "on", "protocol", "parameters", "receptive_field",
    "multiply_adds", "train_loss", "seconds", "seconds_epoch", "seconds_to_85", "data", "device", "threads",
    "precision", "compiled", "date", "commit",
)

SCATTERED = ("accuracy", "accuracy_tta", "accuracy_without_ema", "last_accuracy", "best_accuracy")
FIGURES = (*SCATTERED, "epochs", "seconds", "seconds_to_85", "parameters", "receptive_field", "multiply_adds")
"Columns whose means stand in tables; SCATTERED are accuracies, with their standard deviation beside the mean."

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
MOST = 1e15  # of any figure that is not an accuracy


class ResultsError(CifarFastError):
    "A table or README that cannot be used; the message names the file and the next step."


def read(path: Path) -> pd.DataFrame:
    "All rows as text, '' for what a run does not have. Raises ResultsError naming the line."
    repair = "repair it, or move it away and the next run starts a new one"
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:  # a spreadsheet may have added its byte order mark
            reader = csv.reader(f, strict=True)
            header, lines = next(reader, []), [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        raise ResultsError(f"no {path} yet; every run adds its row: python -m cifar_fast recipe final") from None
    except (csv.Error, UnicodeDecodeError) as e:
        raise ResultsError(f"{path} cannot be read as CSV ({e}); {repair}") from None
    if "recipe" not in header or len(set(header)) < len(header):
        raise ResultsError(f"{path}: its first line must name the columns, `recipe` among them, each once; {repair}")
    for number, cells in lines:
        if len(cells) != len(header):
            raise ResultsError(f"{path}, line {number}: {len(cells)} values under {len(header)} columns; {repair}")
        for column, value in zip(header, cells, strict=True):
            if column in FIGURES and (fault := fault_of(value, column)):
                raise ResultsError(f"{path}, line {number}: {column} is {short(value)}, {fault}; {repair}")
    rows = [[original_cell(cell) for cell in cells] for _, cells in lines]
    return pd.DataFrame(rows, columns=header, dtype=str)


def fault_of(value: str, column: str) -> str:
    "Why `value` cannot be in this column of figures; '' where it can, as an empty one can."
    if not value:
        return ""
    if not NUMBER.fullmatch(value):  # stricter than float(), which takes nan, 1_000 and the digits of every script
        return "which is not a number"
    most = 1 if column in SCATTERED else MOST
    return "" if 0 <= float(value) <= most else f"which is not in 0 to {most:,.0f}"


def short(value: str) -> str:
    return repr(shorten(value, 40))


def add(row: dict[str, Any], path: Path, spare: Path, once: bool = False) -> None:
    """Append `row` to the table at `path`; runs that end together wait for each other.

    With `once` a row that is there already, but for its date, is not added again. Where the table cannot take it, the
    row goes to `spare` and ResultsError says so.
    """
    line = pd.DataFrame([{k: "" if v is None else str(v) for k, v in row.items()}], dtype=str)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=60):
            rows = read(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS), dtype=str)
            if once and holds(rows, line):
                return
            remove_temporaries(path.parent, path.name)  # the lock is ours: whoever left one is dead
            write_text(path, csv_text(pd.concat([rows, line], ignore_index=True).fillna("")))
    except (ResultsError, OSError) as e:
        why = f"{path}.lock has been held for a minute" if isinstance(e, Timeout) else e
        write_text(spare, csv_text(line))
        raise ResultsError(f"{why}. The run itself is complete and exported; its row is kept in {spare}: "
                           f"add it to {path} by hand") from None


def holds(rows: pd.DataFrame, line: pd.DataFrame) -> bool:
    "Whether `rows` have the one row of `line`, whatever its date."
    columns = [c for c in line.columns if c != "date"]
    return bool((rows.reindex(columns=columns) == line[columns].iloc[0]).all(axis=1).any())
