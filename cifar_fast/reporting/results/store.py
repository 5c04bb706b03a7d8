"""The tables of runs: read as text, so that rows never change; extended under a lock, replaced atomically.

results.csv holds what the project publishes, runs.csv what was run here. A finished run's row stays in its folder until
it is in the table: if the process dies in between, the next run adds it.
"""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from cifar_fast.utils.csv import csv_text, original_cell
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import remove_temporaries, write_text
from cifar_fast.utils.text import shorten

PUBLISHED, OWN, ROW, REPLACED = "results.csv", "runs.csv", "row.csv", "replaced.csv"
"Both tables in exports/; in a run's folder, until the second table has changed, its row and that of the run before it."

COLUMNS = (
    "recipe", "recipe_id", "settings", "seed", "epochs", "accuracy", "balanced_accuracy", "accuracy_tta",
    "accuracy_without_ema", "last_accuracy", "best_accuracy", "best_epoch", "split", "selected_on_test", "images",
    "parameters", "receptive_field", "multiply_adds", "flash", "train_loss", "seconds", "seconds_epoch",
    "seconds_to_85", "data", "device", "threads", "precision", "compiled", "date", "commit",
)

SCATTERED = ("accuracy", "balanced_accuracy", "accuracy_tta", "accuracy_without_ema", "last_accuracy", "best_accuracy")
FIGURES = (*SCATTERED, "epochs", "images", "seconds", "seconds_to_85", "parameters", "receptive_field",
           "multiply_adds", "flash")
"Columns whose means are shown; those in SCATTERED are accuracies, shown with their standard deviation."

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
MOST = 1e15  # for any figure but accuracies


class ResultsError(CifarFastError):
    "A table or README that cannot be used; the message names the file and the next step."


# ---------------------------------------------------------------- reading


def read_all(exports: Path) -> pd.DataFrame:
    "The rows of both tables in a folder, the published ones first. Raises ResultsError."
    there = [exports / name for name in (PUBLISHED, OWN) if (exports / name).exists()]
    if not there:
        raise ResultsError(f"no {exports / OWN} yet; every run adds its row: python -m cifar_fast recipe final")
    return pd.concat([read(path) for path in there], ignore_index=True).fillna("")


def read(path: Path) -> pd.DataFrame:
    "All rows as text, '' for what a run does not have. Raises ResultsError naming the line."
    repair = ("repair it, or move it away: the next run starts a new one" if path.name == OWN else
              "repair or restore it" if path.name == PUBLISHED else "repair it, or name another table")
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:  # a spreadsheet may have added its byte order mark
            reader = csv.reader(f, strict=True)
            header, lines = next(reader, []), [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        if path.suffix == ".csv" and path.name != OWN:  # a table that no run makes
            raise ResultsError(f"there is no {path}; check its name") from None
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


# ---------------------------------------------------------------- adding


def leave_row(folder: Path, row: dict[str, Any]) -> None:
    "Write a run's row into its folder, from where `add_row` takes it."
    write_text(folder / ROW, csv_text(as_line(row)))


def leave_replaced(folder: Path, row: dict[str, Any]) -> None:
    """Write the row of the run that the one in `folder` replaces: `add_row` takes it out of the table.

    A table that kept it would average a run that is no more, and whose weights nobody can look at.
    """
    write_text(folder / REPLACED, csv_text(as_line(row)))


def as_line(row: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{k: "" if v is None else str(v) for k, v in row.items()}], dtype=str)


def add_row(folder: Path) -> None:
    """Move the row in a run's folder to the table beside it, once; runs that end at the same time take turns.

    After an interruption the row is in the folder, in the table, or in both; the next call completes the move. Raises
    ResultsError where the table cannot be changed: the row stays in the folder.
    """
    spare, replaced, table = folder / ROW, folder / REPLACED, folder.parent / OWN
    lock = table.with_name(f".{OWN}.lock")
    try:
        with FileLock(lock, timeout=60):
            if not spare.exists():  # another run has added it
                return
            line = read(spare)
            rows = read(table) if table.exists() else pd.DataFrame(columns=list(COLUMNS), dtype=str)
            kept = rows[~same_as(rows, read(replaced))] if replaced.exists() else rows
            added = kept if same_as(kept, line).any() else pd.concat([kept, line], ignore_index=True).fillna("")
            if len(kept) < len(rows) or len(added) > len(kept):
                remove_temporaries(table.parent, table.name)  # we hold the lock: their process has died
                write_text(table, csv_text(added))
            replaced.unlink(missing_ok=True)
            spare.unlink()
    except (ResultsError, OSError) as e:
        why = f"{lock} has been held for a minute" if isinstance(e, Timeout) else e
        raise ResultsError(f"{why}. The run itself is complete; its row is kept in {spare}, and the next run here adds "
                           f"it") from None


def add_missing_rows(exports: Path) -> None:
    "`add_row` for runs that were stopped just before it. A failure is only a warning: it is another run's."
    for spare in sorted(exports.glob(f"*/{ROW}")):
        try:
            add_row(spare.parent)
        except ResultsError as e:
            warnings.warn(str(e), stacklevel=2)


def same_as(rows: pd.DataFrame, line: pd.DataFrame) -> pd.Series:
    "For each of `rows` whether it is the single row of `line`."
    return (rows.reindex(columns=line.columns, fill_value="") == line.iloc[0]).all(axis=1)
