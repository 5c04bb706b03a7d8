"""The runs beside an export and their files: found by listing the folder, never by a path of a request."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cifar_fast.export.files import ExportError, read_card
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import printable

REPORT, COMPARISON, ROWS = "report.html", "compare.png", "results.csv"
FIGURES = {
    "history.png": "Loss and accuracy by epoch",
    "learning_rate.png": "Learning rate and momentum by step",
    "confusion.png": "Confusion matrix",
    "published.png": "Published and measured accuracy by epoch",
    "lr_find.png": "Learning rate finder",
}
"The files of a run that are served; no other file is."


@dataclass(frozen=True)
class Run:
    "A run that left a card; `problem` says what is wrong with one that cannot be read."

    name: str
    card: dict | None = None
    problem: str | None = None

    def figure(self, *keys: str) -> float | None:
        "A number of the card, `figure('audit', 'params')`; None where it has no such number."
        value: Any = self.card
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value if type(value) in (int, float) and math.isfinite(value) else None

    def text(self, key: str) -> str:
        value = self.card.get(key)
        return printable(value[:200]) if isinstance(value, str) else ""

    @property
    def measured_on(self) -> str:
        return "test" if isinstance(self.card.get("test"), dict) else "held_out"


def runs(folder: Path) -> list[Run]:
    "All runs that left a card in `folder`, the newest first and those that cannot be read last."
    found = [one(folder, path) for path in sorted(folder.glob("*.json")) if inside(folder, path)]
    found.sort(key=lambda r: r.text("date") if r.card else "", reverse=True)
    return found


def one(folder: Path, path: Path) -> Run:
    try:
        return Run(path.stem, read_card(path))
    except ExportError as e:
        return Run(path.stem, problem=str(e).replace(f"{folder}/", ""))  # a reader elsewhere need not know the folder


def find(folder: Path, name: str) -> Run | None:
    "The run of this name whose card can be read."
    return next((r for r in runs(folder) if r.name == name and r.card), None)


def saved_file(folder: Path, run: Run, name: str) -> Path | None:
    "A file of `run`; None if it was not saved, or is none of those that are served."
    known = next((n for n in (REPORT, *FIGURES) if n == name), None)
    return known and existing(folder, folder / run.name / known)


def comparison(folder: Path) -> Path | None:
    return existing(folder, folder / COMPARISON)


@dataclass(frozen=True)
class Compared:
    "The table of all runs; `problem` says why it cannot be shown."

    cells: tuple[tuple[str, ...], ...] = ()  # the heading first
    notes: tuple[str, ...] = ()
    problem: str | None = None


def compared(folder: Path) -> Compared:
    "The rows of results.csv; empty if there is no such file."
    path = existing(folder, folder / ROWS)
    if path is None:
        return Compared()
    try:
        facts = path.stat()
        return _compared(path, facts.st_mtime_ns, facts.st_size)
    except OSError as e:
        return Compared(problem=f"{ROWS}: {e.strerror}")


@lru_cache(maxsize=4)
def _compared(path: Path, *state: int) -> Compared:
    "`compared`, cached until the file changes. The first call reads all recipes, which import fastai."
    from cifar_fast.reporting.compare import HEAD, lines_of_recipes, notes, ordered, table, table_cells

    try:
        rows = ordered(table(lines_of_recipes(path)), "accuracy")
        return Compared((HEAD, *table_cells(rows)), tuple(notes(rows)))
    except CifarFastError as e:
        return Compared(problem=str(e).replace(f"{path.parent}{os.sep}", ""))  # no reader elsewhere needs the folder
    except Exception as e:  # a fault of ours, but the page is shown; the terminal has the traceback
        logging.getLogger(__name__).exception("%s cannot be shown", printable(path))
        return Compared(problem=f"{ROWS} has an unexpected value ({type(e).__name__}); see the server's terminal.")


def existing(folder: Path, path: Path) -> Path | None:
    "The regular file at `path`; None if there is none, or a link leads out of `folder`."
    return path.resolve() if inside(folder, path) else None


def inside(folder: Path, path: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        return real.is_file() and real.is_relative_to(folder.resolve(strict=True))
    except (OSError, ValueError, RuntimeError):  # gone, a name that no file can have, links in a circle
        return False
