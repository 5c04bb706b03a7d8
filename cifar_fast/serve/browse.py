"""The runs in a model's folder and their files: looked up by listing the folder, never by a path of a request."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cifar_fast.export.card import Card
from cifar_fast.export.card_file import list_runs, read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.card_format import ExportError
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import printable

REPORT, COMPARISONS, TABLES = "report.html", ("runs.png", "compare.png"), ("results.csv", "runs.csv")
FIGURES = {
    "history.png": "Loss and accuracy by epoch",
    "learning_rate.png": "Learning rate by step, and momentum where it changes",
    "confusion.png": "Confusion matrix",
    "published.png": "Published and measured accuracy by epoch",
    "lr_find.png": "Learning rate finder",
}
"The figures of a run that are served; beside them only its report is."


@dataclass(frozen=True)
class Run:
    "A run with a card; `problem` says what is wrong with one that cannot be read."

    name: str
    card: Card | None = None
    problem: str | None = None


def runs(folder: Path) -> list[Run]:
    "All runs that have a card in `folder`, the newest first and those that cannot be read last."
    runs = [one(folder, path) for path in list_runs(folder) if inside(folder, path / CARD)]
    runs.sort(key=lambda r: (r.card.date, written(folder / r.name / CARD)) if r.card else ("", 0), reverse=True)
    return runs


def written(path: Path) -> float:
    "When a file was, in seconds: among the runs of one day the last is first."
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def one(folder: Path, path: Path) -> Run:
    try:
        return Run(path.name, read_card(path))
    except ExportError as e:
        return Run(path.name, problem=str(e).replace(f"{folder}/", ""))  # no reader elsewhere needs the folder


def find(folder: Path, name: str) -> Run | None:
    "The run of this name whose card can be read."
    path = next((path for path in list_runs(folder) if path.name == name and inside(folder, path / CARD)), None)
    return run if path and (run := one(folder, path)).card else None


def argument(folder: Path, run: Run) -> str:
    """`run` as the commands take it where the server was started: NAME in exports/, else its path.

    A page has other readers than who started the server, so that of a folder elsewhere shows its name alone.
    """
    here, started = folder.resolve(), Path.cwd().resolve()
    if here == started / "exports":
        return printable(run.name)
    if here == started:
        return printable(f"./{run.name}")
    return printable(here.relative_to(started) / run.name if here.is_relative_to(started) else
                     f".../{here.name}/{run.name}")


def run_file(folder: Path, run: Run, name: str) -> Path | None:
    "A file of `run`; None if it was not saved, or is none of those that are served."
    known = next((n for n in (REPORT, *FIGURES) if n == name), None)
    return known and existing(folder, folder / run.name / known)


def comparison(folder: Path) -> Path | None:
    return next(filter(None, (existing(folder, folder / name) for name in COMPARISONS)), None)


@dataclass(frozen=True)
class Compared:
    "The table of all runs; `problem` says why it cannot be shown."

    cells: tuple[tuple[str, ...], ...] = ()  # the heading first
    notes: tuple[str, ...] = ()  # about all figures
    about_runs: tuple[str, ...] = ()  # about those of one run each
    problem: str | None = None


def compared(folder: Path) -> Compared:
    "The rows of the tables; empty if there is no table."
    paths = [path for name in TABLES if (path := existing(folder, folder / name))]
    try:
        state = tuple((path, facts.st_mtime_ns, facts.st_size) for path in paths for facts in [path.stat()])
        return _compared(folder, state) if state else Compared()
    except OSError as e:
        return Compared(problem=f"{Path(e.filename or TABLES[-1]).name}: {e.strerror}")


@lru_cache(maxsize=4)
def _compared(folder: Path, state: tuple) -> Compared:
    "`compared`, cached until the files change. The first call reads all recipes, which import fastai."
    from cifar_fast.reporting.compare import (
        general_notes,
        head,
        lines_of_recipes,
        ordered,
        run_notes,
        table,
        table_cells,
    )

    try:
        rows = ordered(table(lines_of_recipes(folder)), "accuracy")
        rows["note"] = [note.replace(settings, without_folders(settings)) if settings else note
                        for note, settings in zip(rows["note"], rows["settings"], strict=True)]
        return Compared((head(rows, wide=True), *table_cells(rows, wide=True)), tuple(general_notes(rows, wide=True)),
                        tuple(run_notes(rows)))
    except CifarFastError as e:
        return Compared(problem=str(e).replace(f"{folder}{os.sep}", ""))  # no reader elsewhere needs the folder
    except Exception as e:  # a fault of ours, but the page is shown; the terminal has the traceback
        logging.getLogger(__name__).exception("the table of %s cannot be shown", printable(folder))
        return Compared(problem=f"unexpected {type(e).__name__}; see the server's terminal.")


def without_folders(settings: str) -> str:
    "Settings as they were typed, of absolute paths the last part alone: a page has other readers than who typed them."
    words = []
    try:
        split = shlex.split(settings)
    except ValueError:  # a table by hand
        split = settings.split()
    for word in split:
        key, equals, values = word.partition("=")
        shown = [f".../{Path(value).name}" if Path(value).is_absolute() else value for value in values.split(",")]
        words.append(shlex.quote(f"{key}{equals}{','.join(shown)}"))
    return " ".join(words)


def existing(folder: Path, path: Path) -> Path | None:
    "The regular file at `path`; None if there is none, or a link leads out of `folder`."
    return path.resolve() if inside(folder, path) else None


def inside(folder: Path, path: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        return real.is_file() and real.is_relative_to(folder.resolve(strict=True))
    except (OSError, ValueError, RuntimeError):  # gone, a name that no file can have, links in a circle
        return False
